// Quantities as text, digit for digit as layerbench/units.py writes them: tests compare the two.

const TIME = /** @type {const} */ ([
  ['ns', 1e-9],
  ['µs', 1e-6],
  ['ms', 1e-3],
  ['s', 1],
]);
const ENERGY = /** @type {const} */ ([
  ['µJ', 1e-6],
  ['mJ', 1e-3],
  ['J', 1],
  ['kJ', 1e3],
]);
const BYTES = /** @type {const} */ ([
  ['TiB', 2 ** 40],
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
]);
const PREFIXES = /** @type {const} */ ([
  ['T', 1e12],
  ['G', 1e9],
  ['M', 1e6],
  ['k', 1e3],
]);
const DEFAULT_DIGITS = 4;
const LEAST_DIGITS = 2;
const MOST_DIGITS = 6;
// Enough to see that what is left out is exactly a half, which goes to the even digit.
const EXACT = 60;

/**
 * @param {number} value
 * @param {number} decimals
 * @returns {string}
 */
export function fixed(value, decimals) {
  const places = Math.max(decimals, 0);
  let text = Math.abs(value).toFixed(places);
  const whole = Math.abs(value).toFixed(Math.min(100, places + EXACT));
  const cut = whole.length - Math.min(100 - places, EXACT);
  if (/^50*$/.test(whole.slice(cut).replace('.', ''))) {
    const down = whole.slice(0, cut).replace(/\.$/, '');
    if ('02468'.includes(down.slice(-1))) text = down;
  }
  return value < 0 && Number(text) !== 0 ? `-${text}` : text;
}

/**
 * @param {number} value
 * @param {number} [digits]
 */
function magnitude(value, digits = MOST_DIGITS) {
  if (!Number.isFinite(value)) return 0;
  return Number(value.toExponential(digits - 1).split('e')[1]);
}

/**
 * @param {number} value
 * @param {number} digits
 */
function significant(value, digits) {
  return fixed(value, digits - 1 - magnitude(value, digits));
}

/**
 * @param {number} value
 * @param {number | null} halfWidth
 */
function known(value, halfWidth) {
  if (halfWidth === null || !(halfWidth > 0 && halfWidth < Infinity)) {
    return significant(value, DEFAULT_DIGITS);
  }
  const size = magnitude(value);
  const decimals = -magnitude(halfWidth);
  const least = LEAST_DIGITS - 1 - size;
  const most = MOST_DIGITS - 1 - size;
  return fixed(value, Math.min(Math.max(decimals, least), most));
}

/**
 * A time with its unit.
 * @param {number} value seconds
 * @param {number | null} [halfWidth] of its interval, seconds; sets the digits
 * @returns {string}
 */
export function seconds(value, halfWidth = null) {
  return value === 0 ? '0 s' : scaled(value, halfWidth, TIME);
}

/**
 * An energy with its unit.
 * @param {number} value joules
 * @param {number | null} [halfWidth] of its interval, joules; sets the digits
 * @returns {string}
 */
export function joules(value, halfWidth = null) {
  return value === 0 ? '0 J' : scaled(value, halfWidth, ENERGY);
}

/**
 * In the first unit in which less than a thousand stands.
 * @param {number} value
 * @param {number | null} halfWidth
 * @param {readonly (readonly [string, number])[]} table
 */
function scaled(value, halfWidth, table) {
  let text = '';
  let name = '';
  for (const [unit, scale] of table) {
    text = known(value / scale, halfWidth === null ? null : halfWidth / scale);
    name = unit;
    if (Math.abs(Number(text)) < 1000) break;
  }
  return `${text} ${name}`;
}

/**
 * @param {number} value
 * @param {readonly (readonly [string, number])[]} table
 * @returns {[string, string] | null}
 */
function prefixed(value, table) {
  for (const [name, size] of table) {
    if (Math.abs(value) >= size * 0.9995) return [significant(value / size, 3), name];
  }
  return null;
}

/** @param {number} value */
export function bytes(value) {
  const found = prefixed(value, BYTES);
  return found ? `${found[0]} ${found[1]}` : `${fixed(value, 0)} B`;
}

/** @param {number} value */
export function flops(value) {
  const found = prefixed(value, PREFIXES);
  return found ? `${found[0]} ${found[1]}FLOPs` : `${fixed(value, 0)} FLOPs`;
}

/** @param {number} value */
export function count(value) {
  return value.toLocaleString('en-US');
}

/**
 * ``1 row``, ``2 rows``.
 * @param {number} value
 * @param {string} what
 * @returns {string}
 */
export function plural(value, what) {
  return `${count(value)} ${what}${value === 1 ? '' : 's'}`;
}

/**
 * @param {number} fraction
 * @param {number} [digits]
 */
export function percent(fraction, digits = 1) {
  return `${fixed(fraction * 100, digits)} %`;
}

/** @param {number} value */
export function ratio(value) {
  return fixed(value, 3);
}

/** @typedef {'seconds' | 'bytes' | 'flops' | 'count' | 'joules'} Unit */

/**
 * A value of a metric.
 * @param {number} value
 * @param {Unit} unit
 * @param {number | null} [halfWidth]
 * @returns {string}
 */
export function text(value, unit, halfWidth = null) {
  if (unit === 'seconds') return seconds(value, halfWidth);
  if (unit === 'bytes') return bytes(value);
  if (unit === 'flops') return flops(value);
  if (unit === 'joules') return joules(value, halfWidth);
  return count(value);
}
