// What is looked at, kept in the page's address, so that a link shows the same.

/**
 * @typedef {object} State
 * @property {string} heat column that colours
 * @property {string} width metric of the icicle's widths
 * @property {boolean} log
 * @property {string} sort
 * @property {boolean} up
 * @property {string} query
 * @property {boolean} folding
 * @property {boolean} flat
 * @property {string} selected path
 * @property {string} zoom path
 * @property {string} tab
 * @property {string} graph path of the module that the graph shows
 * @property {string} depth as far as it is open: a number, ``blocks`` or ``all``
 * @property {string[]} flipped paths that are open or closed against that
 */

/** @returns {State} */
export function initial() {
  return {
    heat: '',
    width: '',
    log: true,
    sort: '',
    up: false,
    query: '',
    folding: true,
    flat: false,
    selected: '',
    zoom: '',
    tab: '',
    graph: '',
    depth: 'blocks',
    flipped: [],
  };
}

/** @typedef {[keyof State, string]} Named */
/** @type {Named[]} */
const TEXTS = [
  ['heat', 'heat'],
  ['width', 'width'],
  ['sort', 'sort'],
  ['query', 'q'],
  ['selected', 'row'],
  ['zoom', 'zoom'],
  ['tab', 'tab'],
  ['graph', 'graph'],
  ['depth', 'depth'],
];
/** @type {Named[]} */
const SWITCHES = [
  ['log', 'log'],
  ['up', 'up'],
  ['folding', 'fold'],
  ['flat', 'flat'],
];
// A longer address is cut off by who passes it on.
const MOST_FLIPPED = 40;

/** @param {URLSearchParams} given @returns {State} */
export function read(given) {
  const state = /** @type {any} */ (initial());
  for (const [key, name] of TEXTS) state[key] = given.get(name) ?? state[key];
  for (const [key, name] of SWITCHES) {
    if (given.has(name)) state[key] = given.get(name) === '1';
  }
  state.flipped = (given.get('flip') ?? '').split(',').filter(Boolean);
  return state;
}

/**
 * @param {State} state
 * @param {URLSearchParams} into
 */
export function write(state, into) {
  const usual = /** @type {any} */ (initial());
  const now = /** @type {any} */ (state);
  for (const [key, name] of TEXTS) {
    if (now[key] === usual[key]) into.delete(name);
    else into.set(name, now[key]);
  }
  for (const [key, name] of SWITCHES) {
    if (now[key] === usual[key]) into.delete(name);
    else into.set(name, now[key] ? '1' : '0');
  }
  if (state.flipped.length && state.flipped.length <= MOST_FLIPPED) into.set('flip', state.flipped.join(','));
  else into.delete('flip');
}
