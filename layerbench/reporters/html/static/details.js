// What is known of one row: where it stands, its figures, and the distribution behind them.

import { h, svg } from 'layerbench/dom';
import * as units from 'layerbench/units';

/**
 * @param {HTMLElement} box
 * @param {Doc} doc
 * @param {number} node
 * @param {import('layerbench/tree').Tree} tree
 */
export function details(box, doc, node, tree) {
  const fold = tree.fold(node);
  const parts = fold ? ofFold(doc, fold) : ofRow(doc, node);
  box.replaceChildren(...parts);
}

/** @param {Doc} doc @param {Fold} fold */
function ofFold(doc, fold) {
  const rows = doc.metrics
    .flatMap((metric) => [
      { key: metric.key, label: metric.label, unit: metric.unit },
      { key: `own ${metric.key}`, label: `Self ${metric.label === 'FLOPs' ? metric.label : metric.label.toLowerCase()}`, unit: metric.unit },
    ])
    .filter(({ key }) => fold.stats[key])
    .map(({ key, label, unit }) => {
      const cells = fold.stats[key].map((value) =>
        h('td', {}, value === null ? '-' : units.text(value, unit)),
      );
      return h('tr', {}, h('th', { scope: 'row' }, label), ...cells);
    });
  const head = h('tr', {}, ...['Figure', 'Total', 'Least', 'Median', 'Most'].map((name) => h('th', { scope: 'col' }, name)));
  return [
    h('h2', {}, `${fold.type} ×${fold.members.length}`),
    h('p', {}, `${doc.rows.path[fold.members[0]]} to ${doc.rows.path[fold.members[fold.members.length - 1]]}`),
    h('table', {}, h('thead', {}, head), h('tbody', {}, ...rows)),
  ];
}

/** @param {Doc} doc @param {number} row */
function ofRow(doc, row) {
  const { rows } = doc;
  /** @type {[string, string][]} */
  const facts = [
    ['Type', `${rows.type[row]} (${rows.kind[row]})`],
    ['In', rows.inputs[row]],
    ['Out', rows.outputs[row]],
    ['Kernel', rows.kernel[row] ?? ''],
    ['Groups', String(rows.groups[row] ?? '')],
    ['Calls', rows.kind[row] === 'missing' ? '' : String(rows.calls[row])],
    ['Bound by', rows.bound?.[row] ?? ''],
    ['Note', rows.note[row] ?? ''],
  ];
  const shown = facts.filter(([, text]) => text);
  return [
    h('h2', {}, rows.path[row] || doc.title),
    h('dl', {}, ...shown.flatMap(([name, text]) => [h('dt', {}, name), h('dd', {}, text)])),
    figures(doc, row),
    ...compared(doc, row),
    ...kernels(doc, row),
    ...doc.spreads.flatMap((spread) => distribution(spread, row)),
  ];
}

/** @param {Doc} doc @param {number} row */
function figures(doc, row) {
  const head = h('tr', {}, ...['Figure', 'Inclusive', 'Self', 'Of the whole'].map((name) => h('th', { scope: 'col' }, name)));
  const body = doc.metrics
    .filter((metric) => metric.values[row] !== null || metric.own[row] != null)
    .map((metric) => {
      const value = metric.values[row];
      const own = metric.own[row];
      const whole = metric.values[0];
      const share = metric.area.length && value !== null && whole ? units.percent(value / whole) : '';
      return h(
        'tr',
        { title: metric.how },
        h('th', { scope: 'row' }, metric.label),
        h('td', {}, figure(value, metric.unit, metric.between?.[row])),
        h('td', {}, figure(own, metric.unit, metric.own_between?.[row])),
        h('td', {}, share),
      );
    });
  return h('table', {}, h('thead', {}, head), h('tbody', {}, ...body));
}

/**
 * With what it lies between, where that is known.
 * @param {number | null | undefined} value
 * @param {Unit} unit
 * @param {[number, number] | null} [between]
 */
function figure(value, unit, between) {
  if (value == null) return '-';
  if (!between) return units.text(value, unit);
  const half = (between[1] - between[0]) / 2;
  const [text, low, high] = [value, ...between].map((one) => units.text(one, unit, half));
  return `${text} (${low} to ${high})`;
}

/** @param {Doc} doc @param {number} row */
function compared(doc, row) {
  const { changed } = doc;
  if (!changed || !changed.verdict[row]) return [];
  const ratio = changed.ratio[row];
  const verdict = h('strong', { class: changed.verdict[row] }, changed.verdict[row]);
  const words =
    ratio === null
      ? ''
      : `: ${units.ratio(ratio)} times ${changed.baseline}, 95 % interval ` +
        `${units.ratio(changed.low[row] ?? NaN)} to ${units.ratio(changed.high[row] ?? NaN)}; ` +
        `${units.seconds(changed.before[row] ?? NaN)} before, ${units.seconds(changed.after[row] ?? NaN)} now`;
  const note = changed.notes[row];
  return [h('p', {}, verdict, words), ...(note ? [h('p', {}, note)] : [])];
}

// What an accelerator ran for the row and those in it.
/** @param {Doc} doc @param {number} row */
function kernels({ kernels, rows, title }, row) {
  let end = row + 1;
  while (rows.depth[end] > rows.depth[row]) end += 1;
  const ran = (kernels?.entries ?? []).filter(([of]) => of >= row && of < end);
  if (!kernels || !ran.length) return [];
  const { names, labels } = kernels;
  const heads = ['Kernel', 'Of', 'Function', 'Calls', 'Time', 'Of the device'];
  const body = ran.slice(0, 30).map(([of, name, run, calls, time, share]) => {
    const cells = [rows.path[of] || title, run, units.count(calls), units.seconds(time), units.percent(share)];
    return h('tr', {}, h('th', { scope: 'row', title: names[name] }, labels[name]), ...cells.map((text) => h('td', {}, text)));
  });
  const more = ran.length - body.length;
  return [
    h('h3', {}, `Kernels (${ran.length})`),
    h('table', { class: 'quantiles' }, h('thead', {}, h('tr', {}, ...heads.map((name) => h('th', { scope: 'col' }, name)))), h('tbody', {}, ...body)),
    ...(more ? [h('p', {}, `and ${more} shorter ones`)] : []),
  ];
}

/** @param {Spread} spread @param {number} row */
function distribution(spread, row) {
  const found = spread.rows.find((values) => values[0] === row);
  if (!found) return [];
  /** @param {string} name */
  const value = (name) => found[1 + spread.fields.indexOf(name)];
  const half = (value('ci_high') - value('ci_low')) / 2;
  /** @param {string} name */
  const text = (name) => units.seconds(value(name), half);
  const names = { min: 'least', p5: '5 %', p25: '25 %', median: 'median', p75: '75 %', p95: '95 %', max: 'most' };
  const verdict = spread.verdict[row] ?? 'stable';
  const missed = spread.missed[row] ?? [];
  const cells = Object.keys(names).map((name) => h('td', {}, text(name)));
  const heads = Object.values(names).map((name) => h('th', { scope: 'col' }, name));
  return [
    h('h3', {}, `${spread.label}: ${text('median')}, `, h('span', { class: verdict }, verdict)),
    h('p', {}, `${units.count(value('n'))} samples, mean ${text('mean')}, standard deviation ${units.seconds(value('std'))}, 95 % interval of the median ${text('ci_low')} to ${text('ci_high')}${missed.length ? `; ${missed.join('; ')}` : ''}`),
    strip(value, `${spread.label}: from ${text('min')} to ${text('max')}, half of them from ${text('p25')} to ${text('p75')}`),
    h('table', { class: 'quantiles' }, h('thead', {}, h('tr', {}, ...heads)), h('tbody', {}, h('tr', {}, ...cells))),
  ];
}

/**
 * A box of quartiles, a line from 5 to 95 %, the ends.
 * @param {(name: string) => number} value
 * @param {string} label
 */
function strip(value, label) {
  const low = value('min');
  // One sample far out shall not press all others together.
  const far = value('p95') + 2 * (value('p95') - value('p5'));
  const high = Math.min(value('max'), Math.max(far, value('p95')));
  /** @param {string} name */
  const x = (name) => Math.min(398, 2 + (396 * (value(name) - low)) / (high - low || 1));
  const picture = svg('svg', { viewBox: '0 0 400 36', class: 'strip', role: 'img', 'aria-label': label });
  picture.append(
    svg('line', { x1: x('min'), x2: x('max'), y1: 18, y2: 18, class: 'thin' }),
    svg('line', { x1: x('p5'), x2: x('p95'), y1: 18, y2: 18, class: 'thick' }),
    svg('rect', { x: x('p25'), width: Math.max(1, x('p75') - x('p25')), y: 8, height: 20, class: 'box' }),
    svg('rect', { x: x('ci_low'), width: Math.max(1, x('ci_high') - x('ci_low')), y: 30, height: 3, class: 'interval' }),
    svg('line', { x1: x('median'), x2: x('median'), y1: 5, y2: 31, class: 'median' }),
  );
  return picture;
}
