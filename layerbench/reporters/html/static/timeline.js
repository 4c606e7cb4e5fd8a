// Memory as a run goes on; a click shows which layers' tensors were alive.

import uPlot from 'uplot';
import { h } from 'layerbench/dom';
import * as units from 'layerbench/units';

const HEIGHT = 240;
const MOST = 12;

export class TimelineView {
  /**
   * @param {HTMLElement} box
   * @param {Doc} doc
   * @param {(row: number) => void} select
   */
  constructor(box, doc, select) {
    this.doc = doc;
    this.line = /** @type {Timeline} */ (doc.timeline);
    this.select = select;
    this.chart = h('div', { class: 'chart', role: 'img', 'aria-label': `Memory over time: ${this.line.peak}` });
    this.slider = h('input', { type: 'range', min: '0', max: String(this.line.most.length - 1), value: '0', 'aria-label': 'Moment of the run' });
    this.alive = h('div', { class: 'alive' });
    box.replaceChildren(h('p', { class: 'how' }, `${this.line.how} ${this.line.peak}.`), this.chart, this.slider, this.alive);
    this.plot = new uPlot(this.options(box.clientWidth), this.data(), this.chart);
    this.plot.over.addEventListener('click', () => this.show(this.plot.cursor.idx ?? 0));
    this.slider.addEventListener('input', () => this.show(Number(this.slider.value)));
    this.watch = new ResizeObserver(() => this.plot.setSize({ width: Math.max(120, box.clientWidth), height: HEIGHT }));
    this.watch.observe(box);
    this.show(this.line.most.indexOf(this.line.most.reduce((a, b) => Math.max(a, b), 0)));
  }

  remove() {
    this.watch.disconnect();
    this.plot.destroy();
  }

  data() {
    return [this.line.most.map((_, index) => index), this.line.most, this.line.end];
  }

  /** @param {number} width */
  options(width) {
    const ink = getComputedStyle(this.chart.isConnected ? this.chart : document.body).color;
    /** @param {object} [more] */
    const axis = (more = {}) => ({ stroke: ink, grid: { stroke: '#8884' }, ticks: { stroke: '#8884' }, ...more });
    /** @param {number | null} value */
    const text = (value) => (value === null ? '' : units.bytes(value));
    return {
      width: Math.max(120, width),
      height: HEIGHT,
      scales: { x: { time: false }, y: { range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ high) => [0, high * 1.05] } },
      axes: [
        axis({ label: 'stretches in which one module ran', labelFont: '12px system-ui' }),
        axis({ size: 76, values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map(units.bytes) }),
      ],
      series: [
        { label: 'stretch', value: (/** @type {any} */ _, /** @type {number | null} */ at) => (at === null ? '' : this.named(at)) },
        { label: 'at most', stroke: '#e0603f', width: 1.5, value: (/** @type {any} */ _, /** @type {number | null} */ v) => text(v) },
        { label: 'at its end', stroke: '#3b82f6', dash: [5, 4], value: (/** @type {any} */ _, /** @type {number | null} */ v) => text(v) },
      ],
    };
  }

  /** @param {number} at */
  named(at) {
    const owner = this.line.owner[at];
    const who = owner === null ? 'outside the model' : this.doc.rows.path[owner] || 'the model itself';
    return `${at + 1}, ${this.line.phase[at]}: ${who}`;
  }

  /**
   * What was alive at the end of a stretch.
   * @param {number} at
   */
  show(at) {
    this.slider.value = String(at);
    this.slider.setAttribute('aria-valuetext', this.named(at));
    /** @type {Map<number, number>} */ const alive = new Map();
    for (const changes of this.line.changes.slice(0, at + 1)) {
      for (const [row, change] of changes) alive.set(row, (alive.get(row) ?? 0) + change);
    }
    const there = [...alive].filter(([, size]) => size > 0).sort((a, b) => b[1] - a[1]);
    const items = there.slice(0, MOST).map(([row, size]) => {
      const name = row < 0 ? 'loaded before, or outside the model' : this.doc.rows.path[row] || 'the model itself';
      const label = `${units.bytes(size)}  ${name}`;
      if (row < 0) return h('li', {}, label);
      const button = h('button', { type: 'button', class: 'link' }, label);
      button.addEventListener('click', () => this.select(row));
      return h('li', {}, button);
    });
    const more = there.length - items.length;
    if (more > 0) items.push(h('li', {}, `and ${more} more`));
    const words = `At the end of stretch ${this.named(at)}: ${units.bytes(this.line.end[at])} alive, ${units.bytes(this.line.most[at])} at most.`;
    this.alive.replaceChildren(h('p', {}, words), h('ol', {}, ...items));
  }
}
