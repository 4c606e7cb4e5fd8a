// The linked icicle: the tree by depth downward, width by what adds up. Drawn on a canvas.

import { hierarchy, partition } from 'd3-hierarchy';
import { h } from 'layerbench/dom';
import { Heat } from 'layerbench/heat';

const LEVEL = 24;
// Narrower ones are drawn together.
const LEAST_PX = 0.4;
const LABEL_PX = 34;
const MANY = '#c9ccd3';

/** @typedef {import('d3-hierarchy').Node<number>} Block */
/** @typedef {{x: number, y: number, w: number, node: number, small: number}} Rect */

/**
 * @typedef {object} Look
 * @property {(node: number) => string} colour
 * @property {(node: number) => string} name
 * @property {(node: number) => string} value
 * @property {(node: number) => number} area what no row below accounts for
 * @property {(node: number) => number[]} kids
 */

export class Icicle {
  /**
   * @param {HTMLElement} box
   * @param {Look} look
   * @param {{select: (node: number) => void, zoom: (node: number) => void}} told
   */
  constructor(box, look, told) {
    this.box = box;
    this.look = look;
    this.told = told;
    this.selected = -1;
    this.running = -1;
    this.canvas = h('canvas', { role: 'img', 'aria-label': 'Icicle of the layers' });
    this.hint = h('p', { class: 'hint' });
    this.behind = h('table', { class: 'behind' });
    box.replaceChildren(this.canvas, this.hint, this.behind);
    /** @type {Map<number, Block>} */ this.blocks = new Map();
    /** @type {Rect[]} */ this.rects = [];
    this.top = 0;
    this.ended = new AbortController();
    const { signal } = this.ended;
    this.canvas.addEventListener('click', (event) => this.clicked(event), { signal });
    this.canvas.addEventListener('dblclick', (event) => this.zoomed(event), { signal });
    this.canvas.addEventListener('mousemove', (event) => this.hovered(event), { signal });
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(box);
  }

  /** Take it off the page. */
  remove() {
    this.ended.abort();
    this.watch.disconnect();
  }

  /**
   * Lay the blocks out anew.
   * @param {string} label what widths mean
   */
  layout(label) {
    this.label = label;
    const root = hierarchy(0, (node) => {
      const kids = this.look.kids(node);
      return kids.length ? kids : null;
    }).sum((node) => this.look.area(node));
    partition()(/** @type {any} */ (root));
    this.blocks.clear();
    root.eachBefore((block) => this.blocks.set(block.data, block));
    this.whole = root.value ?? 0;
    // What is nothing by this figure cannot be zoomed to.
    if (!this.blocks.get(this.top)?.value) this.top = 0;
    this.draw();
    this.describe();
  }

  /**
   * @param {number} node
   * @returns {boolean} whether there is anything to see of it
   */
  zoomTo(node) {
    if (!this.blocks.get(node)?.value) return false;
    this.top = node;
    this.draw();
    this.describe();
    return true;
  }

  draw() {
    const top = this.blocks.get(this.top);
    const width = this.box.clientWidth;
    if (!top || !width) return;
    const height = (top.height + 1) * LEVEL;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.rects = rectangles(top, width);
    const pen = this.canvas.getContext('2d');
    if (!pen) return;
    pen.scale(scale, scale);
    pen.font = '12px system-ui, sans-serif';
    pen.textBaseline = 'middle';
    for (const rect of this.rects) this.paint(pen, rect);
  }

  /** @param {CanvasRenderingContext2D} pen @param {Rect} rect */
  paint(pen, rect) {
    const { x, y, w, node, small } = rect;
    const colour = small ? MANY : this.look.colour(node);
    pen.fillStyle = colour;
    pen.fillRect(x, y, Math.max(w - 0.5, 0.5), LEVEL - 1);
    if (!small && (node === this.selected || node === this.running)) {
      pen.strokeStyle = node === this.running ? '#0b7d3e' : '#1d4ed8';
      pen.lineWidth = 2;
      pen.strokeRect(x + 1, y + 1, Math.max(w - 2.5, 1), LEVEL - 3);
    }
    if (w < LABEL_PX) return;
    pen.fillStyle = Heat.ink(colour);
    const text = small ? `${small} small` : this.look.name(node);
    pen.fillText(shortened(pen, text, w - 8), x + 4, y + LEVEL / 2);
  }

  /** What stands behind the canvas for who cannot see it. */
  describe() {
    const top = this.blocks.get(this.top);
    if (!top) return;
    const blocks = [...this.blocks.values()]
      .filter((block) => block.x0 >= top.x0 && block.x1 <= top.x1 && block.depth === top.depth + 1)
      .sort((a, b) => (b.value ?? 0) - (a.value ?? 0))
      .slice(0, 10);
    const name = this.look.name(this.top);
    this.canvas.setAttribute('aria-label', `Icicle of ${name}: width by ${this.label}`);
    const caption = h('caption', {}, `The largest parts of ${name}, by ${this.label}`);
    const rows = blocks.map((block) =>
      h('tr', {}, h('th', { scope: 'row' }, this.look.name(block.data)), h('td', {}, this.look.value(block.data))),
    );
    this.behind.replaceChildren(caption, h('tbody', {}, ...rows));
  }

  /** @param {MouseEvent} event @returns {Rect | undefined} */
  under(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    return this.rects.find((rect) => rect.x <= x && x < rect.x + rect.w && rect.y <= y && y < rect.y + LEVEL);
  }

  /** @param {MouseEvent} event */
  clicked(event) {
    const rect = this.under(event);
    if (rect && !rect.small) this.told.select(rect.node);
  }

  /** @param {MouseEvent} event */
  zoomed(event) {
    const rect = this.under(event);
    if (rect && !rect.small) this.told.zoom(rect.node);
  }

  /** @param {MouseEvent} event */
  hovered(event) {
    const rect = this.under(event);
    if (!rect) this.hint.textContent = '';
    else if (rect.small) this.hint.textContent = `${rect.small} blocks too small to draw: double-click their parent to zoom`;
    else this.hint.textContent = `${this.look.name(rect.node)}: ${this.look.value(rect.node)}`;
  }

  /** The same picture as an SVG document. */
  svg() {
    const width = this.box.clientWidth;
    const top = this.blocks.get(this.top);
    const height = ((top?.height ?? 0) + 1) * LEVEL;
    const parts = this.rects.map((rect) => {
      const colour = rect.small ? MANY : this.look.colour(rect.node);
      const text = rect.small ? `${rect.small} small` : this.look.name(rect.node);
      const most = Math.floor((rect.w - 8) / 7);
      const label =
        rect.w < LABEL_PX
          ? ''
          : `<text x="${(rect.x + 4).toFixed(1)}" y="${rect.y + 16}" fill="${Heat.ink(colour)}">${escaped(text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text)}</text>`;
      const hint = rect.small ? text : `${text}: ${this.look.value(rect.node)}`;
      return `<g><title>${escaped(hint)}</title><rect x="${rect.x.toFixed(2)}" y="${rect.y}" width="${Math.max(rect.w - 0.5, 0.5).toFixed(2)}" height="${LEVEL - 1}" fill="${colour}"/>${label}</g>`;
    });
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="12">${parts.join('')}</svg>\n`;
  }
}

/**
 * @param {Block} top
 * @param {number} width
 * @returns {Rect[]}
 */
function rectangles(top, width) {
  /** @type {Rect[]} */ const found = [];
  const scale = width / (top.x1 - top.x0 || 1);
  /** @param {Block} block @param {number} level */
  const visit = (block, level) => {
    found.push({ x: (block.x0 - top.x0) * scale, y: level * LEVEL, w: (block.x1 - block.x0) * scale, node: block.data, small: 0 });
    /** @type {Rect | null} */ let small = null;
    for (const child of block.children ?? []) {
      const w = (child.x1 - child.x0) * scale;
      if (w >= LEAST_PX) {
        if (small) found.push(small);
        small = null;
        visit(child, level + 1);
      } else if (w > 0) {
        const x = (child.x0 - top.x0) * scale;
        small = small ?? { x, y: (level + 1) * LEVEL, w: 0, node: -1, small: 0 };
        small.w += w;
        small.small += 1;
      }
    }
    if (small) found.push(small);
  };
  visit(top, 0);
  return found;
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {string} text
 * @param {number} room
 */
function shortened(pen, text, room) {
  // Cheaper than to measure what surely fits, or surely does not.
  if (text.length * 5 < room && pen.measureText(text).width <= room) return text;
  let end = Math.min(text.length, Math.ceil(room / 4));
  while (end > 1 && pen.measureText(`${text.slice(0, end)}…`).width > room) end -= 1;
  return end < text.length ? `${text.slice(0, end)}…` : text;
}

/** @param {string} text */
function escaped(text) {
  return text.replace(/[&<>"]/g, (sign) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[sign] ?? sign);
}
