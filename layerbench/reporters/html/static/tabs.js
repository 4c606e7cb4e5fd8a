// The tabs beside the table: the row, the graph, the roofline, memory over time, and where figures come from.

import { h, the } from 'layerbench/dom';
import { GraphView } from 'layerbench/graph';
import { RooflineView } from 'layerbench/roofline';
import { TimelineView } from 'layerbench/timeline';

export class Tabs {
  /**
   * @param {HTMLElement} root
   * @param {import('layerbench/state').State} state
   * @param {import('layerbench/graph').Shown & {row: () => void}} acts `row` shows the selected row's details
   */
  constructor(root, state, acts) {
    this.root = root;
    this.state = state;
    this.acts = acts;
  }

  /** @param {Doc} doc */
  setDoc(doc) {
    this.doc = doc;
    /** @type {[string, string, boolean][]} */
    const all = [
      ['row', 'Row', true],
      ['graph', 'Graph', true],
      ['roofline', 'Roofline', Boolean(doc.roofline?.points.length)],
      ['memory', 'Memory over time', Boolean(doc.timeline)],
      ['source', 'Source', true],
    ];
    const shown = all.filter(([, , there]) => there);
    if (!shown.some(([key]) => key === this.state.tab)) this.state.tab = 'row';
    const names = shown.map(([name]) => name);
    the('[role=tablist]', this.root).replaceChildren(...shown.map(([key, label]) => this.button(key, label, names)));
    this.open(this.state.tab);
  }

  /** @param {string} key @param {string} label @param {string[]} names */
  button(key, label, names) {
    const tab = h('button', { type: 'button', role: 'tab', id: `tab-${key}`, 'aria-controls': 'panel' }, label);
    tab.addEventListener('click', () => this.open(key));
    tab.addEventListener('keydown', (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = names[(names.indexOf(key) + step + names.length) % names.length];
      this.open(next);
      the(`#tab-${next}`, this.root).focus();
    });
    return tab;
  }

  clear() {
    this.view?.remove();
    this.view = undefined;
  }

  /** @param {number} row */
  select(row) {
    if (this.view instanceof RooflineView || this.view instanceof GraphView) this.view.select(row);
  }

  /** Figures or colours are others. */
  recolour() {
    if (this.view instanceof GraphView) this.view.renew();
  }

  /** @param {number} row that runs now */
  mark(row) {
    if (this.view instanceof GraphView) this.view.run(row);
  }

  /** @param {string} key */
  open(key) {
    const doc = /** @type {Doc} */ (this.doc);
    this.clear();
    this.state.tab = key === 'row' ? '' : key;
    for (const tab of this.root.querySelectorAll('[role=tab]')) {
      const here = tab.id === `tab-${key}`;
      tab.setAttribute('aria-selected', String(here));
      /** @type {HTMLElement} */ (tab).tabIndex = here ? 0 : -1;
    }
    const panel = the('#panel', this.root);
    panel.setAttribute('aria-labelledby', `tab-${key}`);
    const box = h('div', { class: key === 'row' ? 'details' : key });
    panel.replaceChildren(box);
    if (key === 'row') this.acts.row();
    else if (key === 'graph') this.view = new GraphView(box, doc, this.state, this.acts);
    else if (key === 'roofline') this.view = new RooflineView(box, doc, this.acts.select);
    else if (key === 'memory') this.view = new TimelineView(box, doc, this.acts.select);
    else box.append(...source(doc));
    this.acts.changed();
  }
}

/**
 * Where the figures come from.
 * @param {Doc} doc
 */
function source(doc) {
  const parts = [h('h2', {}, 'Where the figures come from'), h('dl', {}, ...doc.source.flatMap(([name, text]) => [h('dt', {}, name), h('dd', {}, text)]))];
  const hows = doc.metrics.map((metric) => h('li', {}, `${metric.label}: ${metric.how}`));
  /** @type {HTMLElement[]} */
  const more = [h('h3', {}, 'Figures'), h('ul', {}, ...hows)];
  if (doc.notes.length) more.push(h('h3', {}, 'Notes'), h('ul', {}, ...doc.notes.map((text) => h('li', {}, text))));
  if (doc.changed?.differences.length) {
    const rows = doc.changed.differences.map(([what, before, after]) => h('tr', {}, h('th', { scope: 'row' }, what), h('td', {}, before), h('td', {}, after)));
    const head = h('tr', {}, ...['What differs', 'Before', 'Now'].map((name) => h('th', { scope: 'col' }, name)));
    more.push(h('h3', {}, 'Differences'), h('table', {}, h('thead', {}, head), h('tbody', {}, ...rows)));
  }
  return [...parts, ...more];
}
