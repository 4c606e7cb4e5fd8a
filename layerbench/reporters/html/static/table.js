// The tree-table: a WAI-ARIA treegrid of which only the rows in sight are in the page.

import { h } from 'layerbench/dom';

const HEIGHT = 28;
const OVERSCAN = 6;
// However tall the window is.
const MOST_ROWS = 150;
// Of a page on paper: nobody prints more.
const MOST_PRINTED = 2000;

/**
 * @typedef {object} Column
 * @property {string} key
 * @property {string} label
 * @property {string} [title]
 * @property {string} width
 * @property {boolean} [wide] left out where there is little room
 * @property {boolean} [left] text that is aligned to the left
 * @property {(node: number) => string} text
 * @property {(node: number) => number | null} [bar] length of a bar, 0 to 1
 * @property {(node: number) => string} [colour]
 * @property {(node: number) => string} [mark] a class of the cell
 */

/**
 * @typedef {object} Source
 * @property {(node: number) => {name: string, type: string, kind: string, note: string}} named
 * @property {(node: number) => boolean} inner whether it has children
 * @property {(node: number) => boolean} open
 * @property {() => boolean} closes whether rows can be closed now
 * @property {(node: number) => boolean} running
 */

/**
 * @typedef {object} Told
 * @property {(node: number) => void} select
 * @property {(node: number, open: boolean) => void} toggle
 * @property {(column: string) => void} sort
 * @property {(node: number) => void} siblings
 */

export class Table {
  /**
   * @param {HTMLElement} box that scrolls
   * @param {Column[]} columns
   * @param {Source} source
   * @param {Told} told
   */
  constructor(box, columns, source, told) {
    this.box = box;
    this.columns = columns;
    this.source = source;
    this.told = told;
    /** @type {number[]} */ this.nodes = [];
    /** @type {number[]} */ this.levels = [];
    this.active = 0;
    this.selected = -1;
    /** @type {Map<number, HTMLElement>} */ this.live = new Map();
    /** @type {HTMLElement[]} */ this.spare = [];
    this.printing = false;
    this.head = h('div', { role: 'rowgroup', class: 'head' });
    this.body = h('div', { role: 'rowgroup', class: 'body' });
    this.grid = h('div', { role: 'treegrid', 'aria-label': 'Layers', class: 'grid' });
    this.grid.append(this.head, this.body);
    box.replaceChildren(this.grid);
    this.setColumns(columns);
    this.ended = new AbortController();
    const { signal } = this.ended;
    box.addEventListener('scroll', () => this.draw(), { passive: true, signal });
    this.body.addEventListener('click', (event) => this.clicked(event), { signal });
    // However the focus came there.
    this.body.addEventListener('focusin', (event) => this.focused(event), { signal });
    this.body.addEventListener('keydown', (event) => this.pressed(event), { signal });
    // Paper has no window to scroll.
    window.addEventListener('beforeprint', () => this.print(true), { signal });
    window.addEventListener('afterprint', () => this.print(false), { signal });
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(box);
  }

  /** Take it off the page. */
  remove() {
    this.ended.abort();
    this.watch.disconnect();
  }

  /** @param {Column[]} columns */
  setColumns(columns) {
    this.columns = columns;
    this.grid.style.setProperty(
      '--columns',
      columns.map((column) => (column.wide ? `var(--wide, ${column.width})` : column.width)).join(' '),
    );
    this.grid.setAttribute('aria-colcount', String(columns.length));
    const row = h('div', { role: 'row', class: 'row', 'aria-rowindex': '1' });
    columns.forEach((column, index) => {
      const button = h('button', { type: 'button', title: column.title ?? '' }, column.label);
      button.addEventListener('click', () => this.told.sort(column.key));
      const cell = h('div', { role: 'columnheader', class: cellClass(column) }, button);
      cell.setAttribute('aria-colindex', String(index + 1));
      row.append(cell);
    });
    this.head.replaceChildren(row);
    for (const element of this.live.values()) element.remove();
    this.live.clear();
    this.spare = [];
  }

  /**
   * @param {string} key
   * @param {boolean} up
   */
  sorted(key, up) {
    const cells = this.head.querySelectorAll('[role=columnheader]');
    cells.forEach((cell, index) => {
      const here = this.columns[index].key === key;
      if (here) cell.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      else cell.removeAttribute('aria-sort');
    });
  }

  /**
   * Show these.
   * @param {number[]} nodes
   * @param {number[]} levels
   */
  show(nodes, levels) {
    const before = this.nodes[this.active];
    this.nodes = nodes;
    this.levels = levels;
    const there = nodes.indexOf(before);
    this.active = there >= 0 ? there : Math.min(this.active, Math.max(0, nodes.length - 1));
    this.grid.setAttribute('aria-rowcount', String(nodes.length + 1));
    this.body.style.height = `${nodes.length * HEIGHT}px`;
    this.refresh();
  }

  /**
   * Some rows anew, if they are in sight.
   * @param {number[]} nodes
   */
  renew(nodes) {
    for (const node of nodes) {
      const element = this.live.get(node);
      if (element) this.fill(element, node);
    }
  }

  /** Everything in sight anew. */
  refresh() {
    this.fresh = true;
    this.draw();
    this.fresh = false;
  }

  /** @param {boolean} printing */
  print(printing) {
    this.printing = printing;
    this.draw();
  }

  draw() {
    // A row that is taken off the page, or used for another, would take the focus with it.
    const focused = this.body.contains(document.activeElement);
    const top = Math.max(0, this.box.scrollTop - this.head.offsetHeight);
    const first = this.printing ? 0 : Math.max(0, Math.floor(top / HEIGHT) - OVERSCAN);
    const number = this.printing ? MOST_PRINTED : Math.min(MOST_ROWS, Math.ceil(this.box.clientHeight / HEIGHT) + 2 * OVERSCAN);
    const last = Math.min(this.nodes.length, first + number);
    /** @type {number[]} */ const wanted = [];
    for (let at = first; at < last; at += 1) wanted.push(at);
    // Who has the focus stays, also out of sight.
    if (this.active < this.nodes.length && (this.active < first || this.active >= last)) {
      wanted.push(this.active);
    }
    const keep = new Set(wanted.map((at) => this.nodes[at]));
    for (const [node, element] of this.live) {
      if (!keep.has(node)) {
        this.live.delete(node);
        this.spare.push(element);
      }
    }
    for (const at of wanted) {
      const node = this.nodes[at];
      let element = this.live.get(node);
      const known = element !== undefined;
      if (!element) {
        element = this.spare.pop() ?? this.rowElement();
        this.live.set(node, element);
      }
      if (!known || this.fresh) this.fill(element, node);
      this.position(element, node, at);
    }
    for (const element of this.spare) element.remove();
    this.spare = [];
    this.inOrder(wanted);
    const here = this.live.get(this.nodes[this.active]);
    if (focused && here && document.activeElement !== here) here.focus({ preventScroll: true });
  }

  /**
   * Elements in the order of their rows, for who reads them one after the other.
   * @param {number[]} wanted
   */
  inOrder(wanted) {
    const focused = document.activeElement;
    const elements = wanted
      .sort((a, b) => a - b)
      .map((at) => /** @type {HTMLElement} */ (this.live.get(this.nodes[at])));
    const middle = elements.findIndex((element) => element === focused);
    // The one with the focus stays where it is: moved, it would lose it.
    if (middle >= 0) {
      for (let at = middle - 1; at >= 0; at -= 1) {
        if (elements[at].nextSibling !== elements[at + 1]) elements[at + 1].before(elements[at]);
      }
    }
    for (let at = Math.max(1, middle + 1); at < elements.length; at += 1) {
      if (elements[at - 1].nextSibling !== elements[at]) elements[at - 1].after(elements[at]);
    }
  }

  rowElement() {
    const row = h('div', { role: 'row', class: 'row' });
    this.columns.forEach((column, index) => {
      const cell = h('div', { role: 'gridcell', class: cellClass(column) });
      cell.setAttribute('aria-colindex', String(index + 1));
      if (index === 0) cell.append(h('span', { class: 'twisty', 'aria-hidden': 'true' }), h('span'), h('span', { class: 'type' }));
      else cell.append(h('span', { class: 'bar', 'aria-hidden': 'true' }), h('span'));
      row.append(cell);
    });
    return row;
  }

  /**
   * @param {HTMLElement} element
   * @param {number} node
   * @param {number} at
   */
  position(element, node, at) {
    element.style.transform = `translateY(${at * HEIGHT}px)`;
    element.setAttribute('aria-rowindex', String(at + 2));
    element.setAttribute('aria-level', String(this.levels[at]));
    element.tabIndex = at === this.active ? 0 : -1;
    element.setAttribute('aria-selected', String(node === this.selected));
    element.dataset.at = String(at);
    if (!element.isConnected) this.body.append(element);
    /** @type {HTMLElement} */ (element.firstElementChild).style.setProperty('--level', String(this.levels[at] - 1));
  }

  /**
   * @param {HTMLElement} element
   * @param {number} node
   */
  fill(element, node) {
    const { source } = this;
    const { name, type, kind, note } = source.named(node);
    if (source.inner(node)) element.setAttribute('aria-expanded', String(source.open(node)));
    else element.removeAttribute('aria-expanded');
    element.className = `row ${kind}${source.running(node) ? ' running' : ''}`;
    this.columns.forEach((column, index) => {
      const cell = /** @type {HTMLElement} */ (element.children[index]);
      if (index === 0) {
        cell.children[1].textContent = name;
        cell.children[2].textContent = type;
        cell.title = note;
        return;
      }
      const [bar, words] = /** @type {HTMLElement[]} */ ([...cell.children]);
      words.textContent = column.text(node);
      const length = column.bar ? column.bar(node) : null;
      bar.style.width = length === null ? '0' : `${Math.min(100, 100 * length).toFixed(1)}%`;
      bar.style.background = column.colour ? column.colour(node) : '';
      if (column.mark) cell.className = `${cellClass(column)} ${column.mark(node)}`;
    });
  }

  /** @param {number} node */
  select(node) {
    this.selected = node;
    for (const [other, element] of this.live) {
      element.setAttribute('aria-selected', String(other === node));
    }
  }

  /**
   * Bring a node into sight and give it the focus.
   * @param {number} node
   * @param {boolean} focus
   */
  reveal(node, focus) {
    const at = this.nodes.indexOf(node);
    if (at >= 0) this.moveTo(at, focus);
  }

  /**
   * @param {number} at
   * @param {boolean} focus
   */
  moveTo(at, focus) {
    const next = Math.max(0, Math.min(this.nodes.length - 1, at));
    this.active = next;
    const top = next * HEIGHT;
    const room = this.box.clientHeight - this.head.offsetHeight;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + HEIGHT > this.box.scrollTop + room) this.box.scrollTop = top + HEIGHT - room;
    this.draw();
    if (focus) this.live.get(this.nodes[next])?.focus({ preventScroll: true });
  }

  /** @param {Event} event @returns {number} */
  rowOf(event) {
    const target = /** @type {Element} */ (event.target).closest('[data-at]');
    return target instanceof HTMLElement ? Number(target.dataset.at) : -1;
  }

  /** @param {Event} event */
  focused(event) {
    const at = this.rowOf(event);
    if (at < 0 || at === this.active) return;
    this.active = at;
    for (const [node, element] of this.live) element.tabIndex = node === this.nodes[at] ? 0 : -1;
  }

  /** @param {MouseEvent} event */
  clicked(event) {
    const at = this.rowOf(event);
    if (at < 0) return;
    const node = this.nodes[at];
    this.moveTo(at, true);
    const twisty = /** @type {Element} */ (event.target).classList.contains('twisty');
    if ((twisty || event.detail === 2) && this.source.inner(node)) {
      this.told.toggle(node, !this.source.open(node));
    } else this.told.select(node);
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.rowOf(event);
    if (at < 0) return;
    const node = this.nodes[at];
    const page = Math.max(1, Math.floor(this.box.clientHeight / HEIGHT) - 2);
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowDown: () => this.walk(at + 1),
      ArrowUp: () => this.walk(at - 1),
      PageDown: () => this.walk(at + page),
      PageUp: () => this.walk(at - page),
      Home: () => this.walk(0),
      End: () => this.walk(this.nodes.length - 1),
      ArrowRight: () => this.inward(at, node),
      ArrowLeft: () => this.outward(at, node),
      Enter: () => this.told.select(node),
      ' ': () => this.told.select(node),
      '*': () => this.told.siblings(node),
    };
    const action = keys[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  /** @param {number} at */
  walk(at) {
    this.moveTo(at, true);
    this.told.select(this.nodes[this.active]);
  }

  /** @param {number} at @param {number} node */
  inward(at, node) {
    if (!this.source.inner(node)) return;
    if (!this.source.open(node)) this.told.toggle(node, true);
    else this.walk(at + 1);
  }

  /** @param {number} at @param {number} node */
  outward(at, node) {
    if (this.source.inner(node) && this.source.open(node) && this.source.closes()) {
      this.told.toggle(node, false);
      return;
    }
    if (this.levels[at] === 1) return;
    let above = at;
    while (above > 0 && this.levels[above] >= this.levels[at]) above -= 1;
    this.walk(above);
  }
}

/** @param {Column} column */
function cellClass(column) {
  return `cell${column.wide ? ' wide' : ''}${column.left ? ' left' : ''}`;
}
