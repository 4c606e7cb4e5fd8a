// One module's inside as a data-flow graph: its calls from top to bottom, tensors between them.

import { download, h, svg } from 'layerbench/dom';
import { Heat } from 'layerbench/heat';
import { edges, items, label, path, places } from 'layerbench/layout';
import { Calls } from 'layerbench/nodes';
import { plural } from 'layerbench/units';

// The model itself, whose path is empty, in the address.
const ROOT = '.';
const MOST_DRAWN = 200;
const HEIGHT = 36;
const PADDING = 16;
const FONT = '12px system-ui, sans-serif';
const LEAST_SCALE = 0.05;
const MOST_SCALE = 3;
const STEP = 1.25;
// For a picture that goes without the page's own styles.
const STYLE = 'text{font:12px sans-serif;text-anchor:middle;fill:#1b1b1b}.shape{fill:#5b6470;font-size:10px}.way{fill:none;stroke:#5b6470}.arrow{fill:#5b6470}.box{stroke:#7c8796}.held .box{stroke-dasharray:4 3}.white{fill:#fff}';

/** @typedef {import('layerbench/layout').Item} Item */
/** @typedef {import('layerbench/layout').Edge} Edge */

/**
 * @typedef {object} Shown
 * @property {(row: number) => void} select
 * @property {() => void} changed the state is another
 * @property {() => import('layerbench/figures').Figures} figures
 * @property {() => import('layerbench/tree').Tree} tree
 */

export class GraphView {
  /**
   * @param {HTMLElement} box
   * @param {Doc} doc
   * @param {import('layerbench/state').State} state
   * @param {Shown} acts
   */
  constructor(box, doc, state, acts) {
    this.box = box;
    this.doc = doc;
    this.state = state;
    this.acts = acts;
    /** @type {Map<string, PageGraph>} */
    this.byPath = new Map();
    for (const graph of doc.graphs ?? []) for (const path of graph.paths) this.byPath.set(path, graph);
    this.calls = new Calls(doc, this.byPath, acts);
    this.at = 0;
    this.scale = 1;
    this.own = false;
    this.fitted = true;
    this.running = -1;
    /** @type {Set<number>} */ this.opened = new Set();
    /** @type {Item[]} */ this.items = [];
    /** @type {Edge[]} */ this.edges = [];
    /** @type {number[]} */ this.fork = [];
    if (!this.byPath.size) {
      box.replaceChildren(...missing(doc));
      return;
    }
    this.crumbs = h('ol');
    this.told = h('p', { class: 'how', role: 'status' });
    this.area = h('div', { class: 'flow' });
    this.legend = h('p', { class: 'how' });
    this.listed = h('details', { class: 'listed' });
    box.replaceChildren(
      h('nav', { class: 'crumbs', 'aria-label': 'Opened module' }, this.crumbs),
      h(
        'div',
        { class: 'flowtools' },
        this.button('Open', 'Open the chosen node', () => this.enter(this.at)),
        this.button('Up', 'Up to the module around this one', () => this.up()),
        this.button('Fit', 'Fit it into the room there is', () => this.fit()),
        this.button('+', 'Larger', () => this.zoom(this.scale * STEP)),
        this.button('−', 'Smaller', () => this.zoom(this.scale / STEP)),
        this.button('SVG', 'Save the graph as SVG', () => this.save()),
      ),
      this.told,
      this.area,
      this.legend,
      h('p', { class: 'how' }, 'Arrow keys go along the tensors, Enter opens a node with a thick edge, Backspace goes up.'),
      this.listed,
    );
    this.listed.addEventListener('toggle', () => this.fill());
    this.area.addEventListener('keydown', (event) => this.pressed(event));
    this.area.addEventListener('focusin', (event) => {
      const node = /** @type {Element} */ (event.target).closest('.node');
      if (node) this.mark(Number(node.getAttribute('data-node')));
    });
    this.watch = new ResizeObserver(() => this.fitted && this.fit());
    this.watch.observe(box);
    this.show(this.nearest(state.graph || state.selected));
    // Told once more when the page is there: what it opens with is the address's.
    this.known = acts.tree().at.get(state.selected === ROOT ? '' : state.selected) ?? -1;
  }

  remove() {
    this.watch?.disconnect();
  }

  /** @param {string} text @param {string} title @param {() => void} action */
  button(text, title, action) {
    const made = h('button', { type: 'button', title, 'aria-label': title }, text);
    made.addEventListener('click', action);
    return made;
  }

  /**
   * The innermost module around a row that has a graph.
   * @param {string} path
   */
  nearest(path) {
    let at = path === ROOT ? '' : path;
    while (at && !this.byPath.has(at)) at = at.slice(0, Math.max(0, at.lastIndexOf('.')));
    return at;
  }

  /** @param {number} row selected somewhere else */
  select(row) {
    const known = this.known;
    this.known = -1;
    if (this.own || !this.byPath.size || row === known) return;
    const path = this.doc.rows.path[row];
    if (path === undefined) return;
    const there = this.items.findIndex((item) => this.calls.rows(item).includes(row));
    if (there >= 0 && !this.byPath.has(path)) this.mark(there);
    else if (this.nearest(path) !== this.path) this.show(this.nearest(path), row);
  }

  /**
   * Open a module.
   * @param {string} path
   * @param {number} [row] to begin at
   */
  show(path, row = -1) {
    this.calls.path = path;
    this.known = -1;
    this.opened.clear();
    this.state.graph = path || ROOT;
    this.at = 0;
    this.fitted = true;
    this.draw();
    const there = row < 0 ? -1 : this.items.findIndex((item) => this.calls.rows(item).includes(row));
    if (there > 0) this.mark(there);
    this.acts.changed();
  }

  get path() {
    return this.calls.path;
  }

  get graph() {
    return this.calls.graph;
  }

  // --- drawing -------------------------------------------------------------------------

  draw() {
    const { graph } = this;
    this.crumb();
    if (!graph) {
      [this.items, this.edges, this.laid] = [[], [], undefined];
      this.told?.replaceChildren('Nothing to draw: what is in this module was not called.');
      this.area?.replaceChildren();
      this.fill();
      return;
    }
    const { found, place } = items(graph, this.opened);
    this.items = found;
    this.edges = edges(graph, place);
    this.at = Math.min(this.at, found.length - 1);
    this.laid = places(
      found.map((item) => ({ width: this.wide(item), height: HEIGHT })),
      this.edges,
      width,
    );
    this.paint();
    if (this.fitted) this.fit();
  }

  /** @param {Item} item */
  wide(item) {
    return Math.max(44, ...this.calls.lines(item).map(width)) + PADDING;
  }

  /** Figures or colours are others: laid out anew where a figure needs more room. */
  renew() {
    const { nodes } = this.laid ?? {};
    if (nodes && this.items.some((item, index) => this.wide(item) > nodes[index].width + 0.5)) this.draw();
    else this.paint();
  }

  /** @param {number} row the one that runs now, or -1 */
  run(row) {
    this.running = row;
    this.picture?.querySelectorAll('.node').forEach((node, index) => node.classList.toggle('running', row >= 0 && this.calls.holds(this.items[index], row)));
  }

  /** Colours and figures anew: where everything stands stays. */
  paint() {
    if (!this.laid || !this.graph) return;
    const focused = this.area?.contains(document.activeElement);
    this.picture = this.drawn();
    this.area?.replaceChildren(this.picture);
    this.sized();
    const count = this.items.length;
    const calls = this.graph.kinds.length;
    const all = `${plural(count, 'node')}${count < calls ? ` for ${plural(calls, 'call')}` : ''}`;
    this.told?.replaceChildren(`${this.path || this.doc.rows.type[0]}: ${all}, ${plural(this.edges.length, 'edge')}`);
    this.legend?.replaceChildren(`${this.calls.label()} of all calls of a row and all that is in it, on the table's colours.`);
    this.fill();
    this.run(this.running);
    if (focused) this.focus(this.at);
  }

  /** The table, which is long, where somebody looks at it. */
  fill() {
    const { listed } = this;
    if (listed) listed.replaceChildren(listed.firstElementChild ?? h('summary', {}, 'As a table'), ...(listed.open && this.graph ? [this.table()] : []));
  }

  drawn() {
    const { nodes, ways, labels, width: wide, height } = /** @type {import('layerbench/layout').Places} */ (this.laid);
    const picture = svg('svg', { viewBox: `0 0 ${wide.toFixed(0)} ${height.toFixed(0)}`, role: 'group', 'aria-label': `Data-flow graph of ${this.path || this.doc.rows.type[0]}` });
    const arrow = svg('marker', { id: 'arrow', viewBox: '0 0 8 8', refX: 8, refY: 4, markerWidth: 7, markerHeight: 7, markerUnits: 'userSpaceOnUse', orient: 'auto' }, svg('path', { d: 'M0 0L8 4L0 8z', class: 'arrow' }));
    picture.append(svg('defs', {}, arrow));
    const lines = svg('g', { 'aria-hidden': 'true' });
    /** @type {SVGElement[]} */
    const shapes = [];
    this.edges.forEach((edge, index) => {
      const hint = svg('title', {}, `${this.calls.named(this.items[edge.from])[0]} → ${this.calls.named(this.items[edge.to])[0]}: ${edge.shapes.join(', ')}`);
      const near = edge.from === this.at || edge.to === this.at ? ' near' : '';
      lines.append(svg('path', { d: path(ways[index]), class: `way${near}`, 'marker-end': 'url(#arrow)' }, hint));
      const where = labels[index];
      if (where) shapes.push(svg('text', { x: where.x, y: where.y + 4, class: 'shape' }, label(edge)));
    });
    // No line runs over a shape.
    lines.append(...shapes);
    picture.append(lines);
    this.items.forEach((item, index) => picture.append(this.node(item, nodes[index], index)));
    return picture;
  }

  /** @param {Item} item @param {import('layerbench/layout').Box} box @param {number} index */
  node(item, box, index) {
    const kind = this.calls.kind(item);
    const value = this.calls.value(item);
    const colour = this.acts.figures().heat?.colour(value) ?? '#d9dce1';
    const [name, under] = this.calls.lines(item);
    const ink = Heat.ink(colour) === '#ffffff' ? 'white' : '';
    const round = { module: 4, 'other module': 4, fold: 0 }[kind] ?? HEIGHT / 2;
    const made = svg('g', { class: `node ${kind}${this.calls.opens(item) ? ' opens' : ''}`, role: 'button', tabindex: index === this.at ? 0 : -1, 'aria-label': this.said(item, index), 'data-node': index });
    const left = box.x - box.width / 2;
    const top = box.y - box.height / 2;
    if (this.calls.kind(item) === 'fold') made.append(svg('rect', { x: left + 4, y: top + 4, width: box.width, height: box.height, fill: colour, class: 'box' }));
    made.append(
      svg('rect', { x: left, y: top, width: box.width, height: box.height, rx: round, fill: colour, class: 'box' }),
      svg('text', { x: box.x, y: under ? box.y - 3 : box.y + 4, class: `name ${ink}` }, name),
    );
    if (under) made.append(svg('text', { x: box.x, y: box.y + 11, class: `under ${ink}` }, under));
    made.addEventListener('click', () => this.go(index));
    made.addEventListener('dblclick', () => this.enter(index));
    return made;
  }

  /** @param {Item} item @param {number} index @returns {string} for who hears it */
  said(item, index) {
    const from = this.edges.filter((edge) => edge.to === index).map((edge) => `${this.calls.named(this.items[edge.from])[0]} ${label(edge)}`);
    const to = this.edges.filter((edge) => edge.from === index).map((edge) => this.calls.named(this.items[edge.to])[0]);
    const [name, type] = this.calls.named(item);
    const parts = [name, type, this.calls.figure(item), from.length ? `from ${from.join(', ')}` : '', to.length ? `to ${to.join(', ')}` : '', this.calls.opens(item) ? 'Enter opens it' : ''];
    return parts.filter(Boolean).join('; ');
  }

  /** The same for who would rather read it. */
  table() {
    const head = ['Node', 'Type', this.calls.label(), 'Takes', 'Gives to'].map((name) => h('th', { scope: 'col' }, name));
    const rows = this.items.map((item, index) => {
      const [name, type] = this.calls.named(item);
      const from = this.edges.filter((edge) => edge.to === index).map((edge) => `${this.calls.named(this.items[edge.from])[0]} (${edge.shapes.join(', ')})`);
      const to = this.edges.filter((edge) => edge.from === index).map((edge) => this.calls.named(this.items[edge.to])[0]);
      return h('tr', {}, h('th', { scope: 'row' }, name), ...[type, this.calls.figure(item) || '-', from.join(', ') || '-', to.join(', ') || '-'].map((text) => h('td', {}, text)));
    });
    const caption = h('caption', {}, `What is called in ${this.path || this.doc.rows.type[0]}, in order`);
    return h('table', {}, caption, h('thead', {}, h('tr', {}, ...head)), h('tbody', {}, ...rows));
  }

  crumb() {
    const parts = this.path ? this.path.split('.') : [];
    const way = ['', ...parts.map((_, index) => parts.slice(0, index + 1).join('.'))].filter((at) => this.byPath.has(at));
    const made = way.map((at) => {
      const button = h('button', { type: 'button', class: 'link' }, at.slice(at.lastIndexOf('.') + 1) || this.doc.rows.type[0]);
      if (at === this.path) button.setAttribute('aria-current', 'true');
      button.addEventListener('click', () => this.show(at));
      return h('li', {}, button);
    });
    this.crumbs?.replaceChildren(...made);
  }

  // --- size ----------------------------------------------------------------------------

  fit() {
    if (!this.laid || !this.area) return;
    const room = this.area.clientWidth || this.laid.width;
    const high = Math.max(240, window.innerHeight * 0.6);
    this.zoom(Math.min(1.2, room / this.laid.width, high / this.laid.height));
    this.fitted = true;
  }

  /** @param {number} scale */
  zoom(scale) {
    this.scale = Math.min(MOST_SCALE, Math.max(LEAST_SCALE, scale));
    this.fitted = false;
    this.sized();
  }

  sized() {
    if (!this.laid || !this.picture) return;
    this.picture.setAttribute('width', (this.laid.width * this.scale).toFixed(0));
    this.picture.setAttribute('height', (this.laid.height * this.scale).toFixed(0));
  }

  save() {
    if (!this.laid) return;
    const copy = this.drawn();
    copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
    copy.setAttribute('width', this.laid.width.toFixed(0));
    copy.setAttribute('height', this.laid.height.toFixed(0));
    copy.prepend(svg('style', {}, STYLE));
    const name = `${this.doc.title}-${this.path || 'graph'}`.replace(/[^A-Za-z0-9_.-]+/g, '-');
    download(`${name}.svg`, new Blob([`${new XMLSerializer().serializeToString(copy)}\n`], { type: 'image/svg+xml' }));
  }

  // --- acting --------------------------------------------------------------------------

  /** @param {number} index */
  mark(index) {
    this.at = index;
    this.picture?.querySelectorAll('.node').forEach((node, at) => node.setAttribute('tabindex', at === index ? '0' : '-1'));
    this.picture?.querySelectorAll('.way').forEach((way, at) => way.classList.toggle('near', this.edges[at].from === index || this.edges[at].to === index));
    this.picture?.querySelectorAll('.node').forEach((node, at) => node.classList.toggle('at', at === index));
  }

  /** @param {number} index */
  focus(index) {
    /** @type {SVGElement | null | undefined} */ (this.picture?.querySelector(`[data-node="${index}"]`))?.focus();
  }

  /** @param {number} index */
  go(index) {
    this.mark(index);
    this.focus(index);
    const [row, ...more] = this.calls.rows(this.items[index]);
    if (row === undefined || more.length) return;
    this.own = true;
    this.acts.select(row);
    this.own = false;
  }

  /** @param {number} index show what is in it */
  enter(index) {
    const item = this.items[index];
    if (!this.calls.opens(item)) {
      this.go(index);
      return;
    }
    if (item.fold < 0) this.show(this.calls.rowPath(item.start));
    else this.unfold(item);
    this.focus(this.at);
  }

  /** @param {Item} item */
  unfold(item) {
    const graph = /** @type {PageGraph} */ (this.graph);
    this.opened.add(item.fold);
    if (items(graph, this.opened).found.length > MOST_DRAWN) {
      // The folds around it stay open.
      const around = graph.folds.flatMap(([start, end], index) => (start <= item.start && item.end <= end ? [index] : []));
      this.opened = new Set([...this.opened].filter((fold) => around.includes(fold)));
    }
    this.draw();
    const at = this.items.findIndex((one) => one.start === item.start);
    this.mark(Math.max(0, at));
  }

  /** Close the fold that is around the node; else show the module around. */
  up() {
    const graph = this.graph;
    const item = this.items[this.at];
    // The innermost one is the last.
    const around = Math.max(...[...this.opened].filter((fold) => graph && graph.folds[fold][0] <= item.start && item.end <= graph.folds[fold][1]));
    if (around >= 0) {
      this.opened.delete(around);
      this.draw();
      const at = this.items.findIndex((one) => one.fold === around);
      this.mark(Math.max(0, at));
      return true;
    }
    if (!this.path) return false;
    const from = this.acts.tree().at.get(this.path) ?? -1;
    this.show(this.nearest(this.path.slice(0, Math.max(0, this.path.lastIndexOf('.')))), from);
    return true;
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.items.length) return;
    const { at } = this;
    const down = this.edges.filter((edge) => edge.from === at).map((edge) => edge.to);
    const above = this.edges.filter((edge) => edge.to === at).map((edge) => edge.from);
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowDown: () => this.along(down),
      ArrowUp: () => this.along(above),
      ArrowRight: () => this.aside(1),
      ArrowLeft: () => this.aside(-1),
      Home: () => this.go(0),
      End: () => this.go(this.items.length - 1),
      Enter: () => this.enter(at),
      ' ': () => this.go(at),
      '+': () => this.zoom(this.scale * STEP),
      '-': () => this.zoom(this.scale / STEP),
      Backspace: () => this.up() && this.focus(this.at),
      Escape: () => this.up() && this.focus(this.at),
    };
    const action = keys[event.key];
    // At the top, Escape is the page's.
    if (!action || (event.key === 'Escape' && !this.path && !this.opened.size)) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  /** @param {number[]} to nodes at the other ends of edges */
  along(to) {
    if (!to.length) return;
    this.fork = [...to].sort((a, b) => a - b);
    this.go(this.fork[0]);
  }

  /** @param {number} step to another end of the edges that were taken, or beside */
  aside(step) {
    const nodes = this.laid?.nodes ?? [];
    const beside = this.items.map((_, index) => index).filter((index) => Math.abs(nodes[index].y - nodes[this.at].y) < 1);
    const list = this.fork.length > 1 && this.fork.includes(this.at) ? this.fork : beside.sort((a, b) => nodes[a].x - nodes[b].x);
    const next = list[(list.indexOf(this.at) + step + list.length) % list.length];
    if (next !== this.at) this.go(next);
  }
}

const ruler = h('canvas').getContext('2d');

/** @param {string} text */
function width(text) {
  if (ruler) ruler.font = FONT;
  return ruler?.measureText(text).width ?? text.length * 7;
}

/**
 * What to do where a record has no graph.
 * @param {Doc} doc
 */
function missing(doc) {
  const why = doc.graphs ? 'No module of this model calls anything that could be drawn.' : 'This record does not say which layer takes which tensor.';
  const how = 'A record of layerbench profile, or of layerbench mem --struct, made with this version, does.';
  return [h('h2', {}, 'No graph'), h('p', {}, why), ...(doc.graphs ? [] : [h('p', {}, how)])];
}
