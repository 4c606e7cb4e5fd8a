// One document: the tree-table beside the icicle, and what belongs to the selected row.

import { Address } from 'layerbench/address';
import { columnsOf } from 'layerbench/columns';
import { details } from 'layerbench/details';
import { h, the } from 'layerbench/dom';
import { exportsOf } from 'layerbench/exports';
import { Figures } from 'layerbench/figures';
import { firstScreen } from 'layerbench/first';
import { Icicle } from 'layerbench/icicle';
import { pressed } from 'layerbench/keys';
import { Table } from 'layerbench/table';
import { Tabs } from 'layerbench/tabs';
import { Tree } from 'layerbench/tree';
import * as units from 'layerbench/units';

// The model itself, whose path is empty, in the address.
const ROOT = '.';

export class Viewer {
  /**
   * @param {HTMLElement} root
   * @param {Doc} doc
   * @param {() => void} changed called when what is looked at has changed
   */
  constructor(root, doc, changed) {
    this.root = root;
    this.changed = changed;
    this.address = new Address();
    this.state = this.address.read();
    this.tabs = this.newTabs();
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
    this.tabs.clear();
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
    const figures = new Figures(doc, tree, state);
    this.figures = figures;
    if (state.heat && !figures.all().has(state.heat)) state.heat = '';
    if (state.width && !figures.metric(state.width)) state.width = '';
    if (state.sort && state.sort !== 'name' && !figures.sortable(state.sort)) state.sort = '';
    /** @type {Set<number>} */
    this.open = this.openedTo(state.depth);
    for (const path of state.flipped) this.flip(this.nodeOf(path));
    this.selected = tree.at.get(state.selected) ?? -1;
    this.header();
    this.choices();
    this.build();
    this.tabs.setDoc(doc);
    this.refresh();
    if (this.selected >= 0) this.select(this.selected, true);
    else this.showDetails(0);
    if (state.zoom && tree.at.has(state.zoom)) this.zoom(/** @type {number} */ (tree.at.get(state.zoom)));
  }

  // --- parts ---------------------------------------------------------------------------

  newTabs() {
    return new Tabs(this.root, this.state, {
      select: (row) => this.select(row, true),
      row: () => this.showDetails(Math.max(0, this.selected ?? 0)),
      changed: () => this.remember(),
      figures: () => /** @type {Figures} */ (this.figures),
      tree: () => /** @type {Tree} */ (this.tree),
    });
  }

  /** Colours and their legend, after another column colours or its figures have changed. */
  recolour() {
    const figures = /** @type {Figures} */ (this.figures);
    figures.recolour();
    the('.legend', this.root).replaceChildren(...figures.legend());
    this.tabs.recolour();
  }

  header() {
    const doc = /** @type {Doc} */ (this.doc);
    the('.title', this.root).textContent = doc.title;
    the('.subtitle', this.root).textContent = doc.subtitle;
    firstScreen(the('.first', this.root), doc, (row) => this.goTo(row));
    const facts = doc.facts.map(([name, text]) => h('div', {}, h('dt', {}, name), h('dd', {}, text)));
    the('.facts', this.root).replaceChildren(...facts);
    the('.said', this.root).replaceChildren(...doc.warnings.map((text) => h('p', { class: 'warning' }, text)));
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
        if (name === 'flat' && target.checked && !this.state.sort) this.sortBy(this.figures?.heatKey() ?? '');
        if (name === 'folding') this.refold(target.checked);
        this.set({ [name]: target.checked });
      });
    }
    document.addEventListener('keydown', (event) => pressed(this, event), { signal });
    window.addEventListener('pagehide', () => this.address.write(this.state), { signal });
  }

  /** @param {Partial<import('layerbench/state').State>} some */
  set(some) {
    Object.assign(this.state, some);
    this.recolour();
    this.recolumn();
    this.layout();
    this.refresh();
    this.remember();
  }

  /** New columns, if they are others: the focus may be in one. */
  recolumn() {
    const columns = columnsOf(/** @type {Figures} */ (this.figures));
    const known = this.table?.columns.map((column) => column.key).join();
    if (columns.map((column) => column.key).join() === known && this.table) this.table.columns = columns;
    else this.table?.setColumns(columns);
  }

  choices() {
    const heat = /** @type {HTMLSelectElement} */ (the('.heat', this.root));
    const width = /** @type {HTMLSelectElement} */ (the('.width', this.root));
    const doc = /** @type {Doc} */ (this.doc);
    const figures = /** @type {Figures} */ (this.figures);
    heat.replaceChildren(...[...figures.all()].map(([key, { label }]) => h('option', { value: key }, label)));
    heat.value = figures.heatKey();
    const widths = doc.metrics.filter((metric) => metric.area.length);
    width.replaceChildren(...widths.map((metric) => h('option', { value: metric.key }, metric.label)));
    width.value = figures.widthKey();
    const depth = /** @type {HTMLSelectElement} */ (the('.depth', this.root));
    const deepest = doc.rows.depth.reduce((a, b) => Math.max(a, b), 1);
    if (this.state.depth !== 'blocks' && !(Number(this.state.depth) <= deepest)) this.state.depth = 'all';
    const levels = Array.from({ length: deepest }, (_, level) => h('option', { value: String(level + 1) }, String(level + 1)));
    depth.replaceChildren(h('option', { value: 'blocks' }, 'the blocks'), ...levels, h('option', { value: 'all' }, 'all'));
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
    const figures = /** @type {Figures} */ (this.figures);
    this.recolour();
    this.table = new Table(
      the('.table', this.root),
      columnsOf(figures),
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
        colour: (node) => figures.colour(node),
        name: (node) => this.shortName(node),
        value: (node) => figures.text(figures.widthKey(), node),
        area: (node) => figures.metric(figures.widthKey())?.area[node] ?? 0,
        kids: (node) => tree.children[node],
      },
      { select: (node) => this.select(node, true), zoom: (node) => this.zoom(node) },
    );
    this.layout();
  }

  layout() {
    if (!this.icicle || !this.figures) return;
    const metric = this.figures.metric(this.figures.widthKey());
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

  // --- acting --------------------------------------------------------------------------

  refresh() {
    const { state, table, tree, open, figures } = this;
    if (!table || !tree || !open || !figures) return;
    this.markRow();
    const seen = tree.seen({ open, folding: state.folding, query: state.query, sort: state.sort, up: state.up, flat: state.flat }, (node) => figures.sortValue(node));
    table.sorted(state.sort || 'name', state.sort ? state.up : true);
    table.show(seen.nodes, seen.levels);
    const found = state.query ? `${units.count(seen.matches)} of ${units.count(tree.size)} rows match` : units.plural(tree.size, 'row');
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

  /** @param {string} depth @returns {Set<number>} */
  openedTo(depth) {
    const tree = /** @type {Tree} */ (this.tree);
    if (depth === 'blocks') return tree.openedAtBlocks(this.state.folding);
    return tree.opened(depth === 'all' ? Infinity : Number(depth) || 1, this.state.folding);
  }

  /** @param {string} depth */
  openTo(depth) {
    this.open = this.openedTo(depth);
    Object.assign(this.state, { depth, flipped: [] });
    this.refresh();
    this.remember();
  }

  /** @param {boolean} folding */
  refold(folding) {
    this.state.folding = folding;
    this.openTo(this.state.depth);
  }

  /** @param {number} row wherever the page is */
  goTo(row) {
    this.clearSearch();
    this.select(row, true);
    the('.panes', this.root).scrollIntoView({ block: 'nearest' });
    this.table?.reveal(row, true);
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
    this.tabs.select(node);
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

  // --- while it is measured ------------------------------------------------------------

  /** @param {string | null} path the module now running */
  mark(path) {
    const node = path === null ? -1 : this.tree?.at.get(path) ?? -1;
    if (node === this.running) return;
    this.running = node;
    this.tabs.mark(node);
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
    if (this.figures?.setTimes(rows, how)) {
      Object.assign(this.state, { heat: '', width: '' });
      this.choices();
    }
    this.set({});
    this.showDetails(Math.max(0, this.selected ?? 0));
  }

  // --- what is looked at ---------------------------------------------------------------

  clearSearch() {
    const search = /** @type {HTMLInputElement} */ (the('.search', this.root));
    if (!this.state.query) return;
    search.value = '';
    this.state.query = '';
    this.refresh();
    this.remember();
  }

  remember() {
    this.address.writeSoon(this.state);
    this.changed();
  }

  /** What the address says now, which somebody has changed. */
  reread() {
    this.state = this.address.read();
    this.tabs.state = this.state;
    const search = /** @type {HTMLInputElement} */ (the('.search', this.root));
    search.value = this.state.query;
    for (const name of /** @type {const} */ (['folding', 'flat', 'log'])) {
      /** @type {HTMLInputElement} */ (the(`.${name}`, this.root)).checked = this.state[name];
    }
    if (this.doc) this.setDoc(this.doc);
  }
}

/** @param {string} path */
function last(path) {
  return path.slice(path.lastIndexOf('.') + 1);
}
