// FLOPs a second against FLOPs a byte, both logarithmic, below the ceilings of the device.

import { h } from 'layerbench/dom';
import * as units from 'layerbench/units';

const MARGIN = { left: 62, right: 22, top: 24, bottom: 40 };
const HEIGHT = 320;
const NEAR_PX = 12;
// Seen on light and on dark.
const COLOURS = { compute: '#d97706', memory: '#3b82f6', none: '#7c8796' };

/** @typedef {Roofline['points'][number]} Point */

export class RooflineView {
  /**
   * @param {HTMLElement} box
   * @param {Doc} doc
   * @param {(row: number) => void} select
   */
  constructor(box, doc, select) {
    const roof = /** @type {Roofline} */ (doc.roofline);
    this.box = box;
    this.doc = doc;
    this.roof = roof;
    this.points = roof.points.filter((point) => point.intensity > 0 && point.rate > 0);
    this.selected = -1;
    this.canvas = h('canvas', { role: 'img', 'aria-label': `Roofline of ${this.points.length} layers` });
    this.hint = h('p', { class: 'hint' });
    const how = h('p', { class: 'how' }, `${roof.how} Circles: bound by computing; squares: by memory; area: time.`);
    box.replaceChildren(this.canvas, this.hint, how, this.table());
    /** @param {MouseEvent} event */
    const near = (event) => this.near(event);
    this.canvas.addEventListener('click', (event) => {
      const point = near(event);
      if (point) select(point.row);
    });
    this.canvas.addEventListener('mousemove', (event) => {
      const point = near(event);
      this.hint.textContent = point ? this.told(point) : '';
    });
    this.watch = new ResizeObserver(() => this.draw());
    this.watch.observe(box);
  }

  remove() {
    this.watch.disconnect();
  }

  /** @param {number} row */
  select(row) {
    this.selected = row;
    this.draw();
  }

  /** @param {Point} point */
  told(point) {
    const share = point.share === null ? '' : `, ${units.percent(point.share)} of the roof`;
    return `${this.doc.rows.path[point.row]}: ${units.flops(point.rate)}/s at ${units.fixed(point.intensity, 1)} FLOPs/B${share}${point.bound ? `, bound by ${point.bound}` : ''}`;
  }

  /** @param {Point} point */
  time(point) {
    return this.doc.metrics.find((metric) => metric.key === 'time')?.own[point.row] ?? 0;
  }

  /** The longest layers, for who cannot see the picture. */
  table() {
    const longest = [...this.points].sort((a, b) => this.time(b) - this.time(a)).slice(0, 10);
    const head = ['Layer', 'FLOPs/s', 'FLOPs/B', 'Of the roof'].map((name) => h('th', { scope: 'col' }, name));
    const rows = longest.map((point) =>
      h(
        'tr',
        {},
        h('th', { scope: 'row' }, this.doc.rows.path[point.row]),
        h('td', {}, units.flops(point.rate)),
        h('td', {}, units.fixed(point.intensity, 1)),
        h('td', {}, point.share === null ? '-' : units.percent(point.share)),
      ),
    );
    const caption = h('caption', {}, 'The layers that take longest');
    return h('table', {}, caption, h('thead', {}, h('tr', {}, ...head)), h('tbody', {}, ...rows));
  }

  scales() {
    const xs = this.points.map((point) => point.intensity);
    const ys = this.points.map((point) => point.rate);
    const { flops_per_s: most, bytes_per_s: fast } = this.roof;
    if (most) ys.push(most);
    if (most && fast) xs.push(most / fast);
    const width = this.box.clientWidth;
    return {
      width,
      x: logScale(xs, MARGIN.left, width - MARGIN.right),
      y: logScale(ys, HEIGHT - MARGIN.bottom, MARGIN.top),
    };
  }

  draw() {
    const { width, x, y } = this.scales();
    const pen = this.canvas.getContext('2d');
    if (!width || !pen) return;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(HEIGHT * scale);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${HEIGHT}px`;
    pen.scale(scale, scale);
    pen.font = '12px system-ui, sans-serif';
    const ink = getComputedStyle(this.box).color;
    this.axes(pen, width, x, y, ink);
    this.ceilings(pen, x, y, ink);
    const longest = this.points.reduce((most, point) => Math.max(most, this.time(point)), 1e-12);
    for (const point of this.points) {
      const r = 2 + 9 * Math.sqrt(this.time(point) / longest);
      pen.fillStyle = `${COLOURS[point.bound === 'compute' || point.bound === 'memory' ? point.bound : 'none']}bb`;
      pen.beginPath();
      if (point.bound === 'memory') pen.rect(x.at(point.intensity) - r, y.at(point.rate) - r, 2 * r, 2 * r);
      else pen.arc(x.at(point.intensity), y.at(point.rate), r, 0, 7);
      pen.fill();
      if (point.row === this.selected) {
        pen.strokeStyle = ink;
        pen.lineWidth = 2;
        pen.stroke();
      }
    }
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {number} width
   * @param {LogScale} x
   * @param {LogScale} y
   * @param {string} ink
   */
  axes(pen, width, x, y, ink) {
    pen.strokeStyle = `color-mix(in srgb, ${ink} 20%, transparent)`;
    pen.fillStyle = ink;
    pen.lineWidth = 1;
    pen.textAlign = 'right';
    pen.textBaseline = 'middle';
    for (const tick of y.ticks) {
      line(pen, MARGIN.left, y.at(tick), width - MARGIN.right, y.at(tick));
      pen.fillText(units.flops(tick).replace('FLOPs', ''), MARGIN.left - 6, y.at(tick));
    }
    pen.textAlign = 'center';
    for (const tick of x.ticks) {
      line(pen, x.at(tick), MARGIN.top, x.at(tick), HEIGHT - MARGIN.bottom);
      pen.fillText(String(tick), x.at(tick), HEIGHT - MARGIN.bottom + 12);
    }
    pen.fillText('FLOPs a byte', width / 2, HEIGHT - 8);
    pen.textAlign = 'left';
    pen.fillText('FLOPs/s', 4, 8);
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {LogScale} x
   * @param {LogScale} y
   * @param {string} ink
   */
  ceilings(pen, x, y, ink) {
    const { flops_per_s: most, bytes_per_s: fast } = this.roof;
    if (!most || !fast) return;
    const knee = most / fast;
    pen.strokeStyle = ink;
    pen.lineWidth = 2;
    const from = Math.max(x.low, y.low / fast);
    line(pen, x.at(from), y.at(from * fast), x.at(knee), y.at(most));
    line(pen, x.at(knee), y.at(most), x.at(x.high), y.at(most));
    pen.textAlign = 'right';
    pen.fillText(`${units.flops(most)}/s, ${units.bytes(fast)}/s`, x.at(x.high) - 4, y.at(most) - 9);
  }

  /** @param {MouseEvent} event */
  near(event) {
    const { x, y } = this.scales();
    const box = this.canvas.getBoundingClientRect();
    /** @type {Point | null} */ let best = null;
    let least = NEAR_PX;
    for (const point of this.points) {
      const gap = Math.hypot(x.at(point.intensity) - event.clientX + box.left, y.at(point.rate) - event.clientY + box.top);
      if (gap < least) [best, least] = [point, gap];
    }
    return best;
  }
}

/** @typedef {{at: (value: number) => number, ticks: number[], low: number, high: number}} LogScale */

/**
 * @param {number[]} values
 * @param {number} from
 * @param {number} to
 * @returns {LogScale}
 */
function logScale(values, from, to) {
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  const most = values.reduce((a, b) => Math.max(a, b), 0);
  const low = 10 ** Math.floor(Math.log10(least * 0.9));
  const high = 10 ** Math.ceil(Math.log10(most * 1.1));
  const span = Math.log(high / low) || 1;
  const ticks = [];
  for (let tick = low; tick <= high * 1.01; tick *= 10) ticks.push(Number(tick.toPrecision(1)));
  return { at: (value) => from + ((to - from) * Math.log(value / low)) / span, ticks, low, high };
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {number} x0
 * @param {number} y0
 * @param {number} x1
 * @param {number} y1
 */
function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}
