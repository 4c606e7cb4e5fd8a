// What the nodes of a graph are: their rows, names and figures.

import { OWN } from 'layerbench/figures';
import * as units from 'layerbench/units';

const LONGEST = 40;
const WORDS = /** @type {Record<string, string>} */ ({ input: 'input', output: 'output', elsewhere: 'from elsewhere' });

/** @typedef {import('layerbench/layout').Item} Item */

export class Calls {
  /**
   * @param {Doc} doc
   * @param {Map<string, PageGraph>} byPath the graph of each module that has one
   * @param {import('layerbench/graph').Shown} acts
   */
  constructor(doc, byPath, acts) {
    this.doc = doc;
    this.byPath = byPath;
    this.acts = acts;
    this.path = '';
  }

  /** @returns {PageGraph | undefined} of the opened module */
  get graph() {
    return this.byPath.get(this.path);
  }

  /** @param {number} node @returns {string} path of its row */
  rowPath(node) {
    const graph = /** @type {PageGraph} */ (this.graph);
    const inside = this.path ? `${this.path}.` : '';
    if (graph.kinds[node] === 'module') return inside + graph.names[node];
    if (graph.kinds[node] === 'function') return `${inside}${graph.names[node]}()`;
    return graph.kinds[node] === 'other module' ? graph.names[node] : '';
  }

  /** @param {Item} item @returns {number[]} the rows in it, each once */
  rows(item) {
    /** @type {Set<number>} */ const found = new Set();
    for (let node = item.start; node < item.end; node += 1) {
      const at = this.rowPath(node);
      const row = at ? this.acts.tree().at.get(at) : undefined;
      if (row !== undefined) found.add(row);
    }
    return [...found];
  }

  /** @param {Item} item */
  kind(item) {
    return item.fold < 0 ? /** @type {PageGraph} */ (this.graph).kinds[item.start] : 'fold';
  }

  /** @param {Item} item @returns {[string, string]} its name, and its type */
  named(item) {
    const graph = /** @type {PageGraph} */ (this.graph);
    const { start, end, fold } = item;
    if (fold >= 0) {
      const ends = [start, end - 1].map((node) => graph.names[node] || WORDS[graph.kinds[node]]);
      return [`${graph.folds[fold][2] || 'calls'} ×${end - start}`, `${ends[0]} to ${ends[1]}`];
    }
    const kind = graph.kinds[start];
    if (kind in WORDS) {
      const alike = graph.kinds.filter((one) => one === kind).length;
      const before = graph.kinds.slice(0, start).filter((one) => one === kind).length;
      return [alike > 1 ? `${WORDS[kind]} ${before + 1}` : WORDS[kind], ''];
    }
    const name = graph.names[start];
    if (kind === 'function') return [`${name}()`, 'function'];
    if (kind === 'held') return [name, 'parameter or buffer'];
    const [row] = this.rows(item);
    return [name, row === undefined ? '' : this.doc.rows.type[row]];
  }

  /** The figure that the page colours by: a node stands for all that is in it, so no self figure. */
  key() {
    const figures = this.acts.figures();
    const key = figures.heatKey();
    const whole = key.startsWith(OWN) ? key.slice(OWN.length) : key;
    return figures.all().has(whole) ? whole : key;
  }

  /** @returns {string} what the figures are called */
  label() {
    return this.acts.figures().all().get(this.key())?.label ?? 'Figure';
  }

  /** @param {Item} item @returns {number | null} of all rows in it */
  value(item) {
    const values = this.acts.figures().all().get(this.key())?.values;
    const known = this.rows(item).flatMap((row) => values?.[row] ?? []);
    return known.length ? known.reduce((sum, one) => sum + one, 0) : null;
  }

  /** @param {Item} item */
  figure(item) {
    const figures = this.acts.figures();
    const key = this.key();
    const [value, unit] = [this.value(item), figures.all().get(key)?.unit];
    const [row, ...more] = this.rows(item);
    return value === null || !unit ? '' : units.text(value, unit, more.length ? null : figures.halfWidth(key, row));
  }

  /** @param {Item} item what stands in its box */
  lines(item) {
    const [name, type] = this.named(item);
    const figure = this.figure(item);
    return [name, [type, figure].filter(Boolean).join(' · ')].map((text) => (text.length > LONGEST ? `${text.slice(0, LONGEST - 1)}…` : text));
  }

  /** @param {Item} item whether Enter shows more of it */
  opens(item) {
    return item.fold >= 0 || this.byPath.has(this.rowPath(item.start) || '\0');
  }

  /** @param {Item} item @param {number} row @returns {boolean} whether the row is in it, however deep */
  holds(item, row) {
    const there = this.rows(item);
    const { parent } = this.acts.tree();
    for (let at = row; at >= 0; at = parent[at]) if (there.includes(at)) return true;
    return false;
  }
}
