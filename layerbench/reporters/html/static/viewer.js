// One document: the tree-table beside the icicle, and what belongs to the selected row.

import { details } from 'layerbench/details';
import { h, the } from 'layerbench/dom';
import { exportsOf } from 'layerbench/exports';
import { Heat } from 'layerbench/heat';
import { Icicle } from 'layerbench/icicle';
import { RooflineView } from 'layerbench/roofline';
import * as states from 'layerbench/state';
import { Table } from 'layerbench/table';
import { TimelineView } from 'layerbench/timeline';
import { Tree } from 'layerbench/tree';
import * as units from 'layerbench/units';

const MARKS = /** @type {Record<string, string>} */ ({ noisy: '~ noisy', drifting: '> drifting' });
const OWN = 'own ';
// The model itself, whose path is empty, in the address.
const ROOT = '.';
const REMEMBERED_MS = 200;

export class Viewer {
  /**
   * @param {HTMLElement} root
   * @param {Doc} doc
   * @param {() => void} changed called when what is looked at has changed
   */
  constructor(root, doc, changed) {
    this.root = root;
    this.changed = changed;
    this.state = states.read(new URLSearchParams(location.hash.slice(1)));
    this.running = -1;
    this.marked = -1;
    this.own = new AbortController();
    this.controls();
    this.setDoc(doc);
  }

  remove() {
    this.own.abort();
    this.table?.remove();
    this.icicle?.remove();
    this.clearTab();
  }

  /**
   * Another document, looked at in the same way.
   * @param {Doc} doc
   */
  setDoc(doc) {
    this.table?.remove();
    this.icicle?.remove();
    this.doc = doc;
    this.tree = new Tree(doc);
    const { state, tree } = this;
    const time = this.metric('time') ?? doc.metrics.find((metric) => metric.area.length) ?? doc.metrics[0];
    this.usual = time?.key ?? '';
    if (state.heat && !this.figures().has(state.heat)) state.heat = '';
    if (state.width && !this.metric(state.width)) state.width = '';
    if (state.sort && state.sort !== 'name' && !this.sortable(state.sort)) state.sort = '';
    /** @type {Set<number>} */
    this.open = tree.opened(state.depth === 'all' ? Infinity : Number(state.depth) || 1, state.folding);
    for (const path of state.flipped) this.flip(this.nodeOf(path));
    this.selected = tree.at.get(state.selected) ?? -1;
    this.header();
    this.choices();
    this.build();
    this.tabs();
    this.refresh();
    if (this.selected >= 0) this.select(this.selected, true);
    else this.showDetails(0);
    if (state.zoom && tree.at.has(state.zoom)) this.zoom(/** @type {number} */ (tree.at.get(state.zoom)));
  }

  // --- parts ---------------------------------------------------------------------------

  header() {
    const doc = /** @type {Doc} */ (this.doc);
    the('.title', this.root).textContent = doc.title;
    the('.subtitle', this.root).textContent = doc.subtitle;
    const facts = doc.facts.map(([name, text]) => h('div', {}, h('dt', {}, name), h('dd', {}, text)));
    the('.facts', this.root).replaceChildren(...facts);
    const said = [];
    if (doc.changed) said.push(h('p', { class: 'summary' }, `${doc.changed.contender} against ${doc.changed.baseline}: ${doc.changed.summary}`));
    said.push(...doc.warnings.map((text) => h('p', { class: 'warning' }, text)));
    the('.said', this.root).replaceChildren(...said);
  }

  /** Columns that can colour and sort, by key. */
  figures() {
    const doc = /** @type {Doc} */ (this.doc);
    /** @type {Map<string, {label: string, unit: Unit, values: (number | null)[]}>} */
    const found = new Map();
    for (const metric of doc.metrics) {
      found.set(metric.key, { label: metric.label, unit: metric.unit, values: metric.values });
      if (metric.own.length) {
        found.set(OWN + metric.key, { label: `Self ${metric.label === 'FLOPs' ? metric.label : metric.label.toLowerCase()}`, unit: metric.unit, values: metric.own });
      }
    }
    if (doc.changed) {
      found.set('after', { label: 'Now', unit: 'seconds', values: doc.changed.after });
      found.set('before', { label: 'Before', unit: 'seconds', values: doc.changed.before });
    }
    return found;
  }

  /** @param {string} key */
  metric(key) {
    return /** @type {Doc} */ (this.doc).metrics.find((metric) => metric.key === key);
  }

  /** @param {string} key */
  sortable(key) {
    const others = ['calls', 'inputs', 'outputs', 'ratio', 'changed', 'verdict'];
    return this.figures().has(key) || others.includes(key);
  }

  heatKey() {
    return this.state.heat || (this.figures().has(OWN + this.usual) ? OWN + this.usual : this.usual ?? '');
  }

  widthKey() {
    return this.state.width || this.usual || '';
  }

  controls() {
    const { root } = this;
    const { signal } = this.own;
    /** @param {string} selector @param {string} type @param {(target: any) => void} action */
    const on = (selector, type, action) => {
      the(selector, root).addEventListener(type, (event) => action(event.target), { signal });
    };
    const search = /** @type {HTMLInputElement} */ (the('.search', root));
    search.value = this.state.query;
    on('.search', 'input', (target) => {
      this.state.query = target.value;
      this.refresh();
      this.remember();
    });
    on('.depth', 'change', (target) => this.openTo(target.value));
    on('.heat', 'change', (target) => this.set({ heat: target.value }));
    on('.width', 'change', (target) => this.set({ width: target.value }));
    for (const name of /** @type {const} */ (['folding', 'flat', 'log'])) {
      const box = /** @type {HTMLInputElement} */ (the(`.${name}`, root));
      box.checked = this.state[name];
      on(`.${name}`, 'change', (target) => {
        if (name === 'flat' && target.checked && !this.state.sort) this.sortBy(this.heatKey());
        if (name === 'folding') this.refold(target.checked);
        this.set({ [name]: target.checked });
      });
    }
    document.addEventListener('keydown', (event) => this.pressed(event), { signal });
    window.addEventListener('pagehide', () => this.address(), { signal });
  }

  /** @param {Partial<states.State>} some */
  set(some) {
    Object.assign(this.state, some);
    this.heatLegend();
    this.recolumn();
    this.layout();
    this.refresh();
    this.remember();
  }

  /** New columns, if they are others: the focus may be in one. */
  recolumn() {
    const columns = this.columns();
    const known = this.table?.columns.map((column) => column.key).join();
    if (columns.map((column) => column.key).join() === known && this.table) this.table.columns = columns;
    else this.table?.setColumns(columns);
  }

  choices() {
    const heat = /** @type {HTMLSelectElement} */ (the('.heat', this.root));
    const width = /** @type {HTMLSelectElement} */ (the('.width', this.root));
    const doc = /** @type {Doc} */ (this.doc);
    heat.replaceChildren(...[...this.figures()].map(([key, { label }]) => h('option', { value: key }, label)));
    heat.value = this.heatKey();
    const widths = doc.metrics.filter((metric) => metric.area.length);
    width.replaceChildren(...widths.map((metric) => h('option', { value: metric.key }, metric.label)));
    width.value = this.widthKey();
    const depth = /** @type {HTMLSelectElement} */ (the('.depth', this.root));
    const deepest = doc.rows.depth.reduce((a, b) => Math.max(a, b), 1);
    if (!(Number(this.state.depth) <= deepest)) this.state.depth = 'all';
    const levels = Array.from({ length: deepest }, (_, level) => h('option', { value: String(level + 1) }, String(level + 1)));
    depth.replaceChildren(...levels, h('option', { value: 'all' }, 'all'));
    depth.value = this.state.depth;
    the('.folding', this.root).closest('label')?.toggleAttribute('hidden', !doc.folds.length);
    const menu = the('.exports', this.root);
    menu.replaceChildren(
      ...exportsOf(doc, /** @type {any} */ ({ svg: () => this.icicle?.svg(), get canvas() { return the('.icicle canvas'); } })).map(([label, action]) => {
        const button = h('button', { type: 'button' }, label);
        button.addEventListener('click', action);
        return h('li', {}, button);
      }),
    );
  }

  build() {
    const tree = /** @type {Tree} */ (this.tree);
    this.heatLegend();
    this.table = new Table(
      the('.table', this.root),
      this.columns(),
      {
        named: (node) => this.named(node),
        inner: (node) => this.inner(node),
        closes: () => !this.state.query,
        open: (node) => Boolean(this.state.query) || /** @type {Set<number>} */ (this.open).has(node),
        running: (node) => node === this.marked,
      },
      {
        select: (node) => this.select(node, false),
        toggle: (node, open) => this.toggle(node, open),
        sort: (key) => this.sortBy(key),
        siblings: (node) => this.openSiblings(node),
      },
    );
    this.icicle = new Icicle(
      the('.icicle', this.root),
      {
        colour: (node) => this.colour(node),
        name: (node) => this.shortName(node),
        value: (node) => this.value(this.widthKey(), node),
        area: (node) => this.metric(this.widthKey())?.area[node] ?? 0,
        kids: (node) => tree.children[node],
      },
      { select: (node) => this.select(node, true), zoom: (node) => this.zoom(node) },
    );
    this.layout();
  }

  layout() {
    if (!this.icicle) return;
    const metric = this.metric(this.widthKey());
    the('.icicle', this.root).hidden = !metric?.area.length;
    if (metric) this.icicle.layout(metric.label);
    this.state.zoom = this.icicle.top ? this.nameOf(this.icicle.top) : '';
    this.crumbs();
  }

  // --- what a row shows ----------------------------------------------------------------

  /** @param {number} node */
  named(node) {
    const { rows } = /** @type {Doc} */ (this.doc);
    const fold = this.tree?.fold(node);
    if (fold) {
      const names = [fold.members[0], fold.members[fold.members.length - 1]].map((row) => last(rows.path[row]));
      return { name: `${fold.type} ×${fold.members.length}`, type: `${names[0]} to ${names[1]}`, kind: 'fold', note: '' };
    }
    const note = rows.note[node] ?? '';
    const path = rows.path[node];
    const name = this.state.flat ? path : last(path);
    return { name: name || rows.type[node], type: name ? rows.type[node] : '', kind: rows.kind[node], note: note || path };
  }

  /** @param {number} node */
  shortName(node) {
    const { name, type } = this.named(node);
    const path = this.tree?.fold(node) ? name : last(/** @type {Doc} */ (this.doc).rows.path[node]);
    return path ? `${path} ${type}` : name;
  }

  /** @param {number} node */
  inner(node) {
    const tree = /** @type {Tree} */ (this.tree);
    const { flat, folding, query } = this.state;
    if (flat) return false;
    return query.trim() ? tree.leads(query, node) : tree.kids(node, folding).length > 0;
  }

  /** @param {string} key @param {number} node @returns {number | null} */
  number(key, node) {
    const fold = this.tree?.fold(node);
    if (fold) return fold.stats[key]?.[0] ?? null;
    const metric = this.metric(key.startsWith(OWN) ? key.slice(OWN.length) : key);
    return (key.startsWith(OWN) ? metric?.own[node] : metric?.values[node]) ?? null;
  }

  /** @param {string} key @param {number} node */
  value(key, node) {
    const unit = this.figures().get(key)?.unit;
    const value = this.number(key, node);
    if (value === null || !unit) return '-';
    return units.text(value, unit, this.halfWidth(key, node));
  }

  /** @param {string} key @param {number} node */
  halfWidth(key, node) {
    if (!this.widths) this.widths = new Map();
    const doc = /** @type {Doc} */ (this.doc);
    let found = this.widths.get(key);
    if (!found || found.doc !== doc) {
      /** @type {Map<number, number>} */ const by = new Map();
      const spread = doc.spreads.find((one) => one.key === key);
      if (spread) {
        const low = 1 + spread.fields.indexOf('ci_low');
        const high = 1 + spread.fields.indexOf('ci_high');
        for (const row of spread.rows) by.set(row[0], (row[high] - row[low]) / 2);
      }
      found = { doc, by };
      this.widths.set(key, found);
    }
    return found.by.get(node) ?? null;
  }

  heatLegend() {
    const key = this.heatKey();
    const figure = this.figures().get(key);
    this.heat = new Heat(figure?.values ?? [], this.state.log);
    const box = the('.legend', this.root);
    if (!figure || !this.heat.high) {
      box.replaceChildren();
      return;
    }
    const steps = this.heat.steps().map(({ colour, from }) => {
      const swatch = h('span', { class: 'swatch' });
      swatch.style.background = colour;
      return h('span', {}, swatch, units.text(from >= 1 || figure.unit === 'seconds' ? from : 0, figure.unit).replace(/(\.\d)\d+/, '$1'));
    });
    box.replaceChildren(h('span', {}, `${figure.label}, from`), ...steps);
  }

  /** @param {number} node */
  colour(node) {
    const key = this.heatKey();
    const value = key === 'before' || key === 'after' ? this.figures().get(key)?.values[node] ?? null : this.number(key, node);
    return this.heat ? this.heat.colour(value) : '';
  }

  /** @returns {import('layerbench/table').Column[]} */
  columns() {
    const doc = /** @type {Doc} */ (this.doc);
    const heat = this.heatKey();
    /** @type {import('layerbench/table').Column[]} */
    const columns = [{ key: 'name', label: 'Layer', title: 'In order of execution', width: 'minmax(var(--name, 17rem), 1fr)', left: true, text: () => '' }];
    if (doc.changed) columns.push(...this.changedColumns(doc.changed));
    for (const [key, { label, unit }] of this.figures()) {
      if (key === 'before' || key === 'after') continue;
      const whole = this.metric(key)?.area.length ? this.number(key, 0) : null;
      columns.push({
        key,
        label,
        title: this.metric(key.replace(OWN, ''))?.how,
        width: '6.5rem',
        wide: columns.length > 3,
        text: (node) => this.value(key, node).replace(/ ?FLOPs$/, ''),
        bar: (node) => (key === heat ? this.heat?.place(this.number(key, node) ?? 0) ?? 0 : whole ? (this.number(key, node) ?? 0) / whole : null),
        colour: (node) => (key === heat ? this.colour(node) : ''),
      });
      if (key === 'time' && unit === 'seconds' && doc.spreads.some((spread) => spread.key === 'time')) {
        columns.push(this.verdictColumn(doc));
      }
    }
    const { outputs, inputs, calls } = doc.rows;
    /** @param {string[] | number[]} values */
    const plain = (values) => (/** @type {number} */ node) => (node < values.length ? String(values[node]) : '');
    if (inputs.some(Boolean)) columns.push({ key: 'inputs', label: 'In', width: '10rem', wide: true, left: true, text: plain(inputs) });
    if (outputs.some(Boolean)) columns.push({ key: 'outputs', label: 'Out', width: '10rem', wide: true, left: true, text: plain(outputs) });
    columns.push({ key: 'calls', label: 'Calls', width: '4rem', wide: true, text: plain(calls) });
    return columns;
  }

  /** @param {Doc} doc @returns {import('layerbench/table').Column} */
  verdictColumn(doc) {
    const spread = doc.spreads.find((one) => one.key === 'time');
    /** @param {number} node */
    const verdict = (node) => spread?.verdict[node] ?? '';
    return {
      key: 'verdict',
      label: 'Verdict',
      title: 'Whether to trust it: stable where nothing is said',
      width: '5.5rem',
      wide: true,
      left: true,
      text: (node) => MARKS[verdict(node)] ?? '',
      mark: verdict,
    };
  }

  /** @param {Changed} changed @returns {import('layerbench/table').Column[]} */
  changedColumns(changed) {
    /** @param {(number | null)[]} values @param {(value: number) => string} text */
    const shown = (values, text) => (/** @type {number} */ node) => {
      const value = values[node];
      return value == null ? '' : text(value);
    };
    return [
      { key: 'changed', label: 'Verdict', width: '6.5rem', left: true, text: (node) => this.verdictsOf(changed, node), mark: (node) => changed.verdict[node] ?? '' },
      { key: 'ratio', label: 'Ratio', title: 'Now over before', width: '5rem', text: shown(changed.ratio, units.ratio) },
      { key: 'before', label: 'Before', title: changed.baseline, width: '6rem', wide: true, text: shown(changed.before, (value) => units.seconds(value)), ...this.heated('before', changed.before) },
      { key: 'after', label: 'Now', title: changed.contender, width: '6rem', text: shown(changed.after, (value) => units.seconds(value)), ...this.heated('after', changed.after) },
    ];
  }

  /**
   * Bar and colour of a column, while the heat is by it.
   * @param {string} key
   * @param {(number | null)[]} values
   */
  heated(key, values) {
    const here = () => this.heatKey() === key;
    return {
      bar: (/** @type {number} */ node) => (here() ? this.heat?.place(values[node] ?? 0) ?? 0 : null),
      colour: (/** @type {number} */ node) => (here() ? this.colour(node) : ''),
    };
  }

  /** @param {Changed} changed @param {number} node */
  verdictsOf(changed, node) {
    const fold = this.tree?.fold(node);
    if (!fold) return changed.verdict[node] ?? '';
    return Object.entries(fold.verdicts).map(([verdict, count]) => `${count} ${verdict}`).join(', ');
  }

  // --- acting --------------------------------------------------------------------------

  /** @param {number} node @returns {number | string | null} */
  key(node) {
    const { sort } = this.state;
    const { changed, rows, spreads } = /** @type {Doc} */ (this.doc);
    const fold = this.tree?.fold(node);
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
    return this.number(sort, node);
  }

  refresh() {
    const { state, table, tree, open } = this;
    if (!table || !tree || !open) return;
    this.markRow();
    const seen = tree.seen({ open, folding: state.folding, query: state.query, sort: state.sort, up: state.up, flat: state.flat }, (node) => this.key(node));
    table.sorted(state.sort || 'name', state.sort ? state.up : true);
    table.show(seen.nodes, seen.levels);
    const found = state.query ? `${units.count(seen.matches)} of ${units.count(tree.size)} rows match` : `${units.count(tree.size)} rows`;
    const told = the('.found', this.root);
    // Said aloud each time that it is written.
    if (told.textContent !== found) told.textContent = found;
  }

  /** @param {string} key */
  sortBy(key) {
    const { state } = this;
    if (key === 'name') Object.assign(state, { sort: '', up: false });
    else if (state.sort !== key) Object.assign(state, { sort: key, up: false });
    else if (!state.up) state.up = true;
    else Object.assign(state, { sort: '', up: false });
    this.refresh();
    this.remember();
  }

  /** @param {number} node */
  flip(node) {
    const open = /** @type {Set<number>} */ (this.open);
    if (node < 0) return;
    if (!open.delete(node)) open.add(node);
  }

  /**
   * A fold is named by its first member.
   * @param {string} name
   */
  nodeOf(name) {
    const tree = /** @type {Tree} */ (this.tree);
    if (name === ROOT) return 0;
    const row = tree.at.get(name.replace(/\*$/, '')) ?? -1;
    return name.endsWith('*') ? tree.foldOf.get(row) ?? -1 : row;
  }

  /** @param {number} node */
  nameOf(node) {
    const { path } = /** @type {Doc} */ (this.doc).rows;
    const fold = this.tree?.fold(node);
    return fold ? `${path[fold.members[0]]}*` : path[node] || ROOT;
  }

  /** @param {number} node @param {boolean} open */
  toggle(node, open) {
    if (this.state.query || this.open?.has(node) === open) return;
    this.flipNoted(node);
    this.refresh();
    this.table?.reveal(node, this.table.body.contains(document.activeElement));
    this.remember();
  }

  /** @param {number} node */
  flipNoted(node) {
    this.flip(node);
    const name = this.nameOf(node);
    const { flipped } = this.state;
    const at = flipped.indexOf(name);
    if (at >= 0) flipped.splice(at, 1);
    else flipped.push(name);
  }

  /** @param {number} node */
  openSiblings(node) {
    const tree = /** @type {Tree} */ (this.tree);
    const above = tree.above(node, this.state.folding)[0];
    if (above === undefined) return;
    for (const sibling of tree.kids(above, this.state.folding)) {
      const inner = tree.kids(sibling, this.state.folding).length > 0;
      if (inner && !this.open?.has(sibling)) this.flipNoted(sibling);
    }
    this.refresh();
    this.table?.reveal(node, true);
    this.remember();
  }

  /** @param {string} depth */
  openTo(depth) {
    const tree = /** @type {Tree} */ (this.tree);
    this.open = tree.opened(depth === 'all' ? Infinity : Number(depth), this.state.folding);
    Object.assign(this.state, { depth, flipped: [] });
    this.refresh();
    this.remember();
  }

  /** @param {boolean} folding */
  refold(folding) {
    this.state.folding = folding;
    this.openTo(this.state.depth);
  }

  /** @param {number} node @param {boolean} reveal whether the table goes there */
  select(node, reveal) {
    const tree = /** @type {Tree} */ (this.tree);
    this.selected = node;
    this.state.selected = tree.fold(node) ? '' : this.nameOf(node);
    if (reveal) {
      if (!this.state.query && !this.state.flat) {
        for (const above of tree.above(node, this.state.folding)) {
          if (!this.open?.has(above)) this.flipNoted(above);
        }
        this.refresh();
      }
      this.table?.reveal(node, false);
    }
    this.table?.select(node);
    if (this.icicle) {
      this.icicle.selected = node;
      this.icicle.draw();
    }
    if (this.view instanceof RooflineView) this.view.select(node);
    this.showDetails(node);
    this.remember();
  }

  /** @param {number} node */
  showDetails(node) {
    const box = this.root.querySelector('#panel .details');
    if (box instanceof HTMLElement && this.doc && this.tree) details(box, this.doc, node, this.tree);
  }

  /** @param {number} node */
  zoom(node) {
    if (!this.icicle || this.tree?.fold(node) || !this.icicle.zoomTo(node)) return;
    this.state.zoom = node ? this.nameOf(node) : '';
    this.crumbs();
    this.remember();
  }

  crumbs() {
    const tree = /** @type {Tree} */ (this.tree);
    const { path, type } = /** @type {Doc} */ (this.doc).rows;
    const top = this.icicle?.top ?? 0;
    const way = [...tree.above(top, false).reverse(), top];
    const items = way.map((node) => {
      const button = h('button', { type: 'button', class: 'link' }, last(path[node]) || type[node]);
      if (node === top) button.setAttribute('aria-current', 'true');
      button.addEventListener('click', () => this.zoom(node));
      return h('li', {}, button);
    });
    const zoom = h('button', { type: 'button' }, 'Zoom to the row');
    zoom.addEventListener('click', () => this.zoom(Math.max(0, this.selected ?? 0)));
    the('.crumbs ol', this.root).replaceChildren(...items, h('li', { class: 'apart' }, zoom));
  }

  // --- tabs ----------------------------------------------------------------------------

  tabs() {
    const doc = /** @type {Doc} */ (this.doc);
    /** @type {[string, string, boolean][]} */
    const all = [
      ['row', 'Row', true],
      ['roofline', 'Roofline', Boolean(doc.roofline?.points.length)],
      ['memory', 'Memory over time', Boolean(doc.timeline)],
      ['source', 'Source', true],
    ];
    const shown = all.filter(([, , there]) => there);
    if (!shown.some(([key]) => key === this.state.tab)) this.state.tab = 'row';
    const list = the('[role=tablist]', this.root);
    list.replaceChildren(
      ...shown.map(([key, label]) => {
        const tab = h('button', { type: 'button', role: 'tab', id: `tab-${key}`, 'aria-controls': 'panel' }, label);
        tab.addEventListener('click', () => this.tab(key));
        tab.addEventListener('keydown', (event) => {
          const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
          if (!step) return;
          event.preventDefault();
          const names = shown.map(([name]) => name);
          const next = names[(names.indexOf(key) + step + names.length) % names.length];
          this.tab(next);
          the(`#tab-${next}`, this.root).focus();
        });
        return tab;
      }),
    );
    this.tab(this.state.tab);
  }

  clearTab() {
    this.view?.remove();
    this.view = undefined;
  }

  /** @param {string} key */
  tab(key) {
    const doc = /** @type {Doc} */ (this.doc);
    this.clearTab();
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
    if (key === 'row') this.showDetails(Math.max(0, this.selected ?? 0));
    else if (key === 'roofline') this.view = new RooflineView(box, doc, (row) => this.select(row, true));
    else if (key === 'memory') this.view = new TimelineView(box, doc, (row) => this.select(row, true));
    else box.append(...source(doc));
    this.remember();
  }

  // --- while it is measured ------------------------------------------------------------

  /** @param {string | null} path the module now running */
  mark(path) {
    const node = path === null ? -1 : this.tree?.at.get(path) ?? -1;
    if (node === this.running) return;
    this.running = node;
    if (this.icicle) {
      this.icicle.running = node;
      this.icicle.draw();
    }
    const before = this.marked;
    this.markRow();
    this.table?.renew([before, this.marked]);
  }

  /** The row that runs, or the closed one that it is in. */
  markRow() {
    const { state, tree, running } = this;
    this.marked = running;
    if (running < 0 || !tree || state.flat || state.query) return;
    for (const above of tree.above(running, state.folding)) {
      if (!this.open?.has(above)) this.marked = above;
    }
  }

  /**
   * Times so far, as they come in.
   * @param {[string, number, number][]} rows path, inclusive and self seconds
   * @param {string} how
   */
  times(rows, how) {
    const doc = /** @type {Doc} */ (this.doc);
    let metric = this.metric('time');
    const { size, at } = /** @type {Tree} */ (this.tree);
    if (!metric || doc.spreads.length) {
      metric = { key: 'time', label: 'Time', unit: 'seconds', how, values: new Array(size).fill(null), own: new Array(size).fill(null), area: new Array(size).fill(0) };
      doc.metrics = [metric, ...doc.metrics.filter((one) => one.key !== 'time')];
      doc.spreads = [];
      this.usual = 'time';
      Object.assign(this.state, { heat: '', width: '' });
      this.choices();
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
    this.set({});
    this.showDetails(Math.max(0, this.selected ?? 0));
  }

  // --- keys ----------------------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  pressed(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/** @type {HTMLDialogElement} */ (the('.help', this.root)).open) return;
    const typing = target.matches('input:not([type=checkbox], [type=range]), select, textarea');
    if (typing && event.key !== 'Escape') return;
    const off = /** @type {HTMLInputElement} */ (the('.single', this.root));
    if (!off.checked && event.key.length === 1) return;
    const selected = Math.max(0, this.selected ?? 0);
    /** @type {Record<string, () => void>} */
    const keys = {
      '/': () => the('.search', this.root).focus(),
      '?': () => /** @type {HTMLDialogElement} */ (the('.help', this.root)).showModal(),
      e: () => this.openTo('all'),
      c: () => this.openTo('1'),
      f: () => the('.folding', this.root).click(),
      l: () => the('.flat', this.root).click(),
      z: () => this.zoom(selected),
      0: () => this.zoom(0),
      Escape: () => this.escape(),
    };
    for (let level = 1; level <= 9; level += 1) keys[level] = () => this.openTo(String(level));
    const action = keys[event.key];
    if (!action) return;
    if (event.key !== 'Escape') event.preventDefault();
    action();
    /** @type {HTMLSelectElement} */ (the('.depth', this.root)).value = this.state.depth;
  }

  escape() {
    const search = /** @type {HTMLInputElement} */ (the('.search', this.root));
    if (!this.state.query) return;
    search.value = '';
    this.state.query = '';
    this.refresh();
    this.remember();
  }

  /** Soon: browsers bear only so many changes of the address. */
  remember() {
    window.clearTimeout(this.soon);
    this.soon = window.setTimeout(() => this.address(), REMEMBERED_MS);
    this.changed();
  }

  address() {
    window.clearTimeout(this.soon);
    const given = new URLSearchParams(location.hash.slice(1));
    states.write(this.state, given);
    const hash = given.toString();
    if (hash !== location.hash.slice(1)) history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search);
  }

  /** What the address says now, which somebody has changed. */
  reread() {
    this.state = states.read(new URLSearchParams(location.hash.slice(1)));
    const search = /** @type {HTMLInputElement} */ (the('.search', this.root));
    search.value = this.state.query;
    for (const name of /** @type {const} */ (['folding', 'flat', 'log'])) {
      /** @type {HTMLInputElement} */ (the(`.${name}`, this.root)).checked = this.state[name];
    }
    if (this.doc) this.setDoc(this.doc);
  }
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

/** @param {string} path */
function last(path) {
  return path.slice(path.lastIndexOf('.') + 1);
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
