// The columns of the tree-table.

import { OWN } from 'layerbench/figures';
import * as units from 'layerbench/units';

/** @typedef {import('layerbench/table').Column} Column */
/** @typedef {import('layerbench/figures').Figures} Figures */

const MARKS = /** @type {Record<string, string>} */ ({ noisy: '~ noisy', drifting: '> drifting' });

/** @param {Figures} figures @returns {Column[]} */
export function columnsOf(figures) {
  const { doc } = figures;
  /** @type {Column[]} */
  const columns = [{ key: 'name', label: 'Layer', title: 'In order of execution', width: 'minmax(var(--name, 17rem), 1fr)', left: true, text: () => '' }];
  if (doc.changed) columns.push(...changedColumns(figures, doc.changed));
  for (const [key, { label, unit }] of figures.all()) {
    if (key === 'before' || key === 'after') continue;
    columns.push({ ...figureColumn(figures, key, label), wide: columns.length > 3 });
    if (key === 'time' && unit === 'seconds' && doc.spreads.some((spread) => spread.key === 'time')) {
      columns.push(verdictColumn(doc));
    }
  }
  const { outputs, inputs, calls } = doc.rows;
  /** @param {string[] | number[]} values */
  const plain = (values) => (/** @type {number} */ node) => (node < values.length ? String(values[node]) : '');
  if (inputs.some(Boolean)) columns.push({ key: 'inputs', label: 'In', width: '10rem', wide: true, left: true, text: plain(inputs) });
  if (outputs.some(Boolean)) columns.push({ key: 'outputs', label: 'Out', width: '10rem', wide: true, left: true, text: plain(outputs) });
  const { kernel, groups } = doc.rows;
  if (Object.keys(kernel).length) columns.push({ key: 'kernel', label: 'Kernel', title: 'Size of the kernel', width: '5rem', wide: true, text: (node) => kernel[node] ?? '' });
  if (Object.values(groups).some((number) => number > 1)) columns.push({ key: 'groups', label: 'Groups', width: '4.5rem', wide: true, text: (node) => String(groups[node] ?? '') });
  columns.push({ key: 'calls', label: 'Calls', width: '4rem', wide: true, text: plain(calls) });
  return columns;
}

/** @param {Figures} figures @param {string} key @param {string} label @returns {Column} */
function figureColumn(figures, key, label) {
  const heat = figures.heatKey();
  const whole = figures.metric(key)?.area.length ? figures.number(key, 0) : null;
  return {
    key,
    label,
    title: figures.metric(key.replace(OWN, ''))?.how,
    width: '6.5rem',
    text: (node) => figures.text(key, node).replace(/ ?FLOPs$/, ''),
    bar: (node) => (key === heat ? figures.heat?.place(figures.number(key, node) ?? 0) ?? 0 : whole ? (figures.number(key, node) ?? 0) / whole : null),
    colour: (node) => (key === heat ? figures.colour(node) : ''),
  };
}

/** @param {Doc} doc @returns {Column} */
function verdictColumn(doc) {
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

/** @param {Figures} figures @param {Changed} changed @returns {Column[]} */
function changedColumns(figures, changed) {
  /** @param {(number | null)[]} values @param {(value: number) => string} text */
  const shown = (values, text) => (/** @type {number} */ node) => {
    const value = values[node];
    return value == null ? '' : text(value);
  };
  return [
    { key: 'changed', label: 'Verdict', width: '6.5rem', left: true, text: (node) => verdictsOf(figures, changed, node), mark: (node) => changed.verdict[node] ?? '' },
    { key: 'ratio', label: 'Ratio', title: 'Now over before', width: '5rem', text: shown(changed.ratio, units.ratio) },
    { key: 'before', label: 'Before', title: changed.baseline, width: '6rem', wide: true, text: shown(changed.before, (value) => units.seconds(value)), ...heated(figures, 'before', changed.before) },
    { key: 'after', label: 'Now', title: changed.contender, width: '6rem', text: shown(changed.after, (value) => units.seconds(value)), ...heated(figures, 'after', changed.after) },
  ];
}

/**
 * Bar and colour of a column, while the heat is by it.
 * @param {Figures} figures
 * @param {string} key
 * @param {(number | null)[]} values
 */
function heated(figures, key, values) {
  const here = () => figures.heatKey() === key;
  return {
    bar: (/** @type {number} */ node) => (here() ? figures.heat?.place(values[node] ?? 0) ?? 0 : null),
    colour: (/** @type {number} */ node) => (here() ? figures.colour(node) : ''),
  };
}

/** @param {Figures} figures @param {Changed} changed @param {number} node */
function verdictsOf(figures, changed, node) {
  const fold = figures.tree.fold(node);
  if (!fold) return changed.verdict[node] ?? '';
  return Object.entries(fold.verdicts).map(([verdict, count]) => `${count} ${verdict}`).join(', ');
}
