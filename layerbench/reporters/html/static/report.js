// A report in one file: the document lies in the page.

import { the } from 'layerbench/dom';
import { Viewer } from 'layerbench/viewer';

// The first screen lies in the page itself, to be read without scripts.
const doc = { ...JSON.parse(the('#document').textContent ?? ''), head: the('.first').innerHTML.trim() };
document.title = `${doc.title}: layerbench`;
the('.keys').addEventListener('click', () => /** @type {HTMLDialogElement} */ (the('.help')).showModal());
const viewer = new Viewer(the('.viewer'), doc, () => {});
window.addEventListener('hashchange', () => viewer.reread());
// For who waits until there is something to see.
document.documentElement.dataset.ready = String(Math.round(performance.now()));
