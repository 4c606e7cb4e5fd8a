// The first screen: what weakens the figures, the answer, where the time goes.

import { h } from 'layerbench/dom';

// What the table calls the model itself, whose path is empty.
const MODEL = '(model)';

/**
 * @param {HTMLElement} box
 * @param {Doc} doc
 * @param {(row: number) => void} go to a row of the tree
 */
export function firstScreen(box, doc, go) {
  // Python made this markup, and names in it are text: layerbench/reporters/html/plain.py.
  box.innerHTML = doc.head ?? '';
  box.hidden = !doc.head;
  const rows = new Map(doc.rows.path.map((path, row) => [path || MODEL, row]));
  for (const name of box.querySelectorAll('th[scope=row]')) {
    const row = rows.get(name.textContent ?? '');
    if (row === undefined) continue;
    const button = h('button', { type: 'button', class: 'link', title: 'Show it in the tree' }, name.textContent ?? '');
    button.addEventListener('click', () => go(row));
    name.replaceChildren(button);
  }
}
