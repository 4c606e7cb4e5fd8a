// What the rows of one document show: its figures by column, their text, order and colour.

import { h } from 'layerbench/dom';
import { Heat } from 'layerbench/heat';
import * as units from 'layerbench/units';

export const OWN = 'own ';

export class Figures {
  /**
   * @param {Doc} doc
   * @param {import('layerbench/tree').Tree} tree
   * @param {import('layerbench/state').State} state
   */
  constructor(doc, tree, state) {
    this.doc = doc;
    this.tree = tree;
    this.state = state;
    const time = this.metric('time') ?? doc.metrics.find((metric) => metric.area.length) ?? doc.metrics[0];
    this.usual = time?.key ?? '';
    /** @type {Map<string, Map<number, number>>} */
    this.widths = new Map();
  }

  /** Columns that can colour and sort, by key. */
  all() {
    const { doc } = this;
    /** @type {Map<string, {label: string, unit: Unit, values: (number | null)[]}>} */
    const all = new Map();
    for (const metric of doc.metrics) {
      all.set(metric.key, { label: metric.label, unit: metric.unit, values: metric.values });
      if (metric.own.length) {
        all.set(OWN + metric.key, { label: `Self ${metric.label === 'FLOPs' ? metric.label : metric.label.toLowerCase()}`, unit: metric.unit, values: metric.own });
      }
    }
    if (doc.changed) {
      all.set('after', { label: 'Now', unit: 'seconds', values: doc.changed.after });
      all.set('before', { label: 'Before', unit: 'seconds', values: doc.changed.before });
    }
    return all;
  }

  /** @param {string} key */
  metric(key) {
    return this.doc.metrics.find((metric) => metric.key === key);
  }

  /** @param {string} key */
  sortable(key) {
    const others = ['calls', 'inputs', 'outputs', 'kernel', 'groups', 'ratio', 'changed', 'verdict'];
    return this.all().has(key) || others.includes(key);
  }

  heatKey() {
    return this.state.heat || (this.all().has(OWN + this.usual) ? OWN + this.usual : this.usual);
  }

  widthKey() {
    return this.state.width || this.usual;
  }

  /** @param {string} key @param {number} node @returns {number | null} */
  number(key, node) {
    const fold = this.tree.fold(node);
    if (fold) return fold.stats[key]?.[0] ?? null;
    const metric = this.metric(key.startsWith(OWN) ? key.slice(OWN.length) : key);
    return (key.startsWith(OWN) ? metric?.own[node] : metric?.values[node]) ?? null;
  }

  /** @param {string} key @param {number} node */
  text(key, node) {
    const unit = this.all().get(key)?.unit;
    const value = this.number(key, node);
    if (value === null || !unit) return '-';
    return units.text(value, unit, this.halfWidth(key, node));
  }

  /** @param {string} key @param {number} node */
  halfWidth(key, node) {
    let widths = this.widths.get(key);
    if (!widths) {
      widths = halfWidths(this.doc, key);
      this.widths.set(key, widths);
    }
    return widths.get(node) ?? null;
  }

  /**
   * What the rows are sorted by.
   * @param {number} node
   * @returns {number | string | null}
   */
  sortValue(node) {
    const { sort } = this.state;
    const { changed, rows, spreads } = this.doc;
    const fold = this.tree.fold(node);
    if (fold && (sort === 'ratio' || sort === 'changed')) {
      // By the one that counts most.
      const all = fold.members.map((row) => (sort === 'ratio' ? changed?.ratio[row] : changed?.verdict[row]));
      return all.reduce((most, one) => (one != null && (most == null || one > most) ? one : most), null) ?? null;
    }
    if (sort === 'ratio') return changed?.ratio[node] ?? null;
    if (sort === 'changed') return changed?.verdict[node] || null;
    if (sort === 'before' || sort === 'after') return changed?.[sort][node] ?? null;
    if (sort === 'verdict') return spreads[0]?.verdict[node] ?? null;
    if (sort === 'calls' || sort === 'inputs' || sort === 'outputs') return rows[sort][node] ?? null;
    if (sort === 'kernel' || sort === 'groups') return rows[sort][String(node)] ?? null;
    return this.number(sort, node);
  }

  /** Colours anew, after another column colours or its figures have changed. */
  recolour() {
    this.heat = new Heat(this.all().get(this.heatKey())?.values ?? [], this.state.log);
  }

  /** @param {number} node */
  colour(node) {
    const key = this.heatKey();
    const value = key === 'before' || key === 'after' ? this.all().get(key)?.values[node] ?? null : this.number(key, node);
    return this.heat ? this.heat.colour(value) : '';
  }

  /** What the colours mean. */
  legend() {
    const figure = this.all().get(this.heatKey());
    if (!figure || !this.heat?.high) return [];
    const steps = this.heat.steps().map(({ colour, from }) => {
      const swatch = h('span', { class: 'swatch' });
      swatch.style.background = colour;
      return h('span', {}, swatch, units.text(from >= 1 || figure.unit === 'seconds' || figure.unit === 'joules' ? from : 0, figure.unit).replace(/(\.\d)\d+/, '$1'));
    });
    return [h('span', {}, `${figure.label}, from`), ...steps];
  }

  /**
   * Times so far, while it is measured.
   * @param {[string, number, number][]} rows path, inclusive and self seconds
   * @param {string} how
   * @returns whether there is a new column of them
   */
  setTimes(rows, how) {
    const { doc, tree } = this;
    const { size, at } = tree;
    let metric = this.metric('time');
    const fresh = !metric || doc.spreads.length > 0;
    if (!metric || fresh) {
      metric = { key: 'time', label: 'Time', unit: 'seconds', how, values: new Array(size).fill(null), own: new Array(size).fill(null), area: new Array(size).fill(0) };
      doc.metrics = [metric, ...doc.metrics.filter((one) => one.key !== 'time')];
      doc.spreads = [];
      this.usual = 'time';
      this.widths.clear();
    }
    metric.how = how;
    for (const [path, inclusive, own] of rows) {
      const row = at.get(path);
      if (row === undefined) continue;
      metric.values[row] = inclusive;
      metric.own[row] = own;
      metric.area[row] = Math.max(0, own);
    }
    for (const fold of doc.folds) {
      summed(fold, 'time', metric.values);
      summed(fold, `${OWN}time`, metric.own);
    }
    return fresh;
  }
}

/**
 * Half the width of each row's interval.
 * @param {Doc} doc
 * @param {string} key
 */
function halfWidths(doc, key) {
  /** @type {Map<number, number>} */
  const widths = new Map();
  // What holds nothing has one distribution for both of its times.
  if (key.startsWith(OWN)) for (const [row, width] of halfWidths(doc, key.slice(OWN.length))) widths.set(row, width);
  const metric = doc.metrics.find((one) => one.key === key.replace(OWN, ''));
  const between = (key.startsWith(OWN) ? metric?.own_between : metric?.between) ?? [];
  between.forEach((ends, row) => ends && widths.set(row, (ends[1] - ends[0]) / 2));
  const spread = doc.spreads.find((one) => one.key === key);
  if (!spread) return widths;
  const low = 1 + spread.fields.indexOf('ci_low');
  const high = 1 + spread.fields.indexOf('ci_high');
  for (const row of spread.rows) widths.set(row[0], (row[high] - row[low]) / 2);
  return widths;
}

/**
 * Figures of a fold that come in while it is measured; those of a record are Python's.
 * @param {Fold} fold
 * @param {string} key
 * @param {(number | null)[]} values
 */
function summed(fold, key, values) {
  const known = fold.members.flatMap((row) => values[row] ?? []).sort((a, b) => a - b);
  if (!known.length) {
    delete fold.stats[key];
    return;
  }
  const middle = (known[(known.length - 1) >> 1] + known[known.length >> 1]) / 2;
  const total = known.reduce((sum, one) => sum + one, 0);
  fold.stats[key] = [total, known[0], middle, known[known.length - 1]];
}
