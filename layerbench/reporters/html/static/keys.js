// Keys that act anywhere on the page.

import { the } from 'layerbench/dom';

/**
 * @param {import('layerbench/viewer').Viewer} viewer
 * @param {KeyboardEvent} event
 */
export function pressed(viewer, event) {
  const { root } = viewer;
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/** @type {HTMLDialogElement} */ (the('.help', root)).open) return;
  const typing = target.matches('input:not([type=checkbox], [type=range]), select, textarea');
  if (typing && event.key !== 'Escape') return;
  const off = /** @type {HTMLInputElement} */ (the('.single', root));
  if (!off.checked && event.key.length === 1) return;
  const action = actions(viewer)[event.key];
  if (!action) return;
  if (event.key !== 'Escape') event.preventDefault();
  action();
  /** @type {HTMLSelectElement} */ (the('.depth', root)).value = viewer.state.depth;
}

/** @param {import('layerbench/viewer').Viewer} viewer */
function actions(viewer) {
  const { root } = viewer;
  /** @type {Record<string, () => void>} */
  const keys = {
    '/': () => the('.search', root).focus(),
    '?': () => /** @type {HTMLDialogElement} */ (the('.help', root)).showModal(),
    e: () => viewer.openTo('all'),
    c: () => viewer.openTo('1'),
    b: () => viewer.openTo('blocks'),
    f: () => the('.folding', root).click(),
    l: () => the('.flat', root).click(),
    z: () => viewer.zoom(Math.max(0, viewer.selected ?? 0)),
    0: () => viewer.zoom(0),
    Escape: () => viewer.clearSearch(),
  };
  for (let level = 1; level <= 9; level += 1) keys[level] = () => viewer.openTo(String(level));
  return keys;
}
