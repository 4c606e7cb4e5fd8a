// What can be taken along: the picture, the table, all that the page was told.

import { download } from 'layerbench/dom';

/**
 * @param {Doc} doc
 * @param {import('layerbench/icicle').Icicle} icicle
 * @returns {[string, () => void][]}
 */
export function exportsOf(doc, icicle) {
  const name = doc.title.replace(/[^A-Za-z0-9_.-]+/g, '-') || 'layers';
  return [
    ['Icicle as SVG', () => download(`${name}.svg`, new Blob([icicle.svg()], { type: 'image/svg+xml' }))],
    ['Icicle as PNG', () => icicle.canvas.toBlob((blob) => blob && download(`${name}.png`, blob), 'image/png')],
    ['Table as CSV', () => download(`${name}.csv`, new Blob([csv(doc)], { type: 'text/csv' }))],
    ['Data as JSON', () => download(`${name}.json`, new Blob([JSON.stringify(doc)], { type: 'application/json' }))],
  ];
}

/**
 * All rows, figures in SI units.
 * @param {Doc} doc
 */
export function csv(doc) {
  const { rows, metrics, changed } = doc;
  const head = ['path', 'type', 'kind', 'depth', 'calls', 'inputs', 'outputs'];
  for (const metric of metrics) {
    head.push(`${metric.key} (${metric.unit})`);
    if (metric.own.length) head.push(`self ${metric.key} (${metric.unit})`);
  }
  if (changed) head.push('baseline (seconds)', 'contender (seconds)', 'ratio', 'verdict');
  const lines = rows.path.map((path, row) => {
    /** @type {(string | number | null | undefined)[]} */
    const cells = [path, rows.type[row], rows.kind[row], rows.depth[row], rows.calls[row], rows.inputs[row], rows.outputs[row]];
    for (const metric of metrics) {
      cells.push(metric.values[row]);
      if (metric.own.length) cells.push(metric.own[row]);
    }
    if (changed) cells.push(changed.before[row], changed.after[row], changed.ratio[row], changed.verdict[row]);
    return cells.map(quoted).join(',');
  });
  return `${head.map(quoted).join(',')}\r\n${lines.join('\r\n')}\r\n`;
}

/** @param {string | number | null | undefined} value */
function quoted(value) {
  if (value === null || value === undefined) return '';
  if (typeof value === 'number') return String(value);
  // A spreadsheet would compute what begins like a formula.
  const text = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
