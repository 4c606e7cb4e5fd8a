// The page of a running service: choose a model, see it at once, measure it, look at records.

import { h, the } from 'layerbench/dom';
import { Viewer } from 'layerbench/viewer';

const API = '/api/v1';
const KEY = 'layerbench-key';
const USUAL = ['vit', 'deit', 'swin', 'resnet'];

/** @typedef {{architecture: string, batch_size: number, image_size: [number, number] | null}} Question */

/** @type {Viewer | null} */ let viewer = null;
/** @type {Question | null} */ let asked = null;
/** @type {AbortController | null} */ let listening = null;
/** @type {string | null} */ let job = null;
// Only the latest choice is shown, whatever is answered first.
let turn = 0;
/** What is being asked for. */
let pending = '';

const form = /** @type {HTMLFormElement} */ (the('.choose'));
/** @param {string} name */
const field = (name) => /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
const measureButton = /** @type {HTMLButtonElement} */ (the('[name=measure]'));
const cancelButton = /** @type {HTMLButtonElement} */ (the('[name=cancel]'));
const bar = /** @type {HTMLProgressElement} */ (the('.choose progress'));

/** @param {string} text */
const status = (text) => {
  the('.status').textContent = text;
};
/** @param {string} text */
const problem = (text) => {
  the('.problem').textContent = text;
};

// --- asking --------------------------------------------------------------------------------

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = new Headers(options.headers);
  if (key) headers.set('X-API-Key', key);
  const answer = await fetch(API + path, { ...options, headers });
  if (answer.status === 401) {
    const given = prompt('This service wants an API key:');
    if (given) {
      sessionStorage.setItem(KEY, given);
      return ask(path, options);
    }
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => null);
    throw new Error(said?.detail ?? `the service answered ${answer.status}`);
  }
  return answer;
}

/** @param {string} path @param {object} body */
function post(path, body) {
  return ask(path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
}

/**
 * Server-sent events, by fetch: EventSource could not send a key.
 * @param {Response} answer
 * @param {(name: string, data: any) => void} heard
 */
async function events(answer, heard) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split('\n\n');
    rest = parts.pop() ?? '';
    for (const part of parts) {
      let name = 'message';
      let data = '';
      for (const line of part.split('\n')) {
        if (line.startsWith('event:')) name = line.slice(6).trim();
        else if (line.startsWith('data:')) data += line.slice(5).trim();
      }
      if (data) heard(name, JSON.parse(data));
    }
  }
}

// --- showing -------------------------------------------------------------------------------

/** @param {Doc} doc */
function show(doc) {
  the('.viewer').hidden = false;
  the('.records').hidden = true;
  document.title = `${doc.title}: layerbench`;
  if (viewer) viewer.setDoc(doc);
  else viewer = new Viewer(the('.viewer'), doc, () => {});
  document.documentElement.dataset.shown = doc.title;
}

/** @param {Record<string, string | null>} some */
function address(some) {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(some)) {
    if (value) given.set(name, value);
    else given.delete(name);
  }
  history.replaceState(null, '', `#${given}`);
}

/**
 * @param {() => Promise<void>} work
 * @param {boolean} [anew] whether what was said before no longer holds
 */
async function trying(work, anew = true) {
  if (anew) problem('');
  try {
    await work();
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') return;
    problem(error instanceof Error ? error.message : String(error));
    status('');
  }
}

/** @returns {Question} */
function question() {
  const height = Number(field('height').value);
  const wide = Number(field('wide').value) || height;
  return {
    architecture: field('model').value.trim(),
    batch_size: Number(field('batch').value) || 1,
    image_size: height ? [height, wide] : null,
  };
}

async function structure() {
  const wanted = question();
  // To leave the field and to press the button may be one and the same wish.
  if (!wanted.architecture || pending === JSON.stringify(wanted)) return;
  pending = JSON.stringify(wanted);
  const mine = (turn += 1);
  stopListening();
  status(`working out the structure of ${wanted.architecture}…`);
  measureButton.disabled = true;
  await trying(async () => {
    const doc = await (await post('/structures', wanted)).json();
    if (mine !== turn) return;
    asked = wanted;
    address({ model: wanted.architecture, batch: String(wanted.batch_size), size: wanted.image_size?.join('x') ?? null, record: null, baseline: null, job: null });
    show(doc);
    measureButton.disabled = false;
    status(`${doc.rows.path.length} rows`);
  });
  if (mine === turn) pending = '';
}

// --- measuring -----------------------------------------------------------------------------

/** @param {boolean} refresh */
async function measure(refresh) {
  if (!asked) return;
  const body = { ...asked, iterations: Number(field('rounds').value) || 300 };
  await trying(async () => {
    const answer = await post(`/profiles?refresh=${refresh}`, body);
    const found = await answer.json();
    if (answer.status === 202) await follow(found.id);
    else show(found);
  });
}

/** @param {string} id */
async function follow(id) {
  job = id;
  address({ job: id });
  measuring(true);
  listening = new AbortController();
  let ended = { state: '', reason: '' };
  try {
    const answer = await ask(`/jobs/${id}/events`, { signal: listening.signal });
    await events(answer, (name, data) => {
      if (name === 'state') ended = data;
      heard(name, data);
    });
  } finally {
    measuring(false);
    viewer?.mark(null);
  }
  if (ended.state === 'done') {
    show(await (await ask(`/jobs/${id}/document`)).json());
    status('measured');
  } else if (ended.state === 'cancelled') status('cancelled');
  else problem(ended.reason || `the job is ${ended.state}`);
  document.documentElement.dataset.job = ended.state;
}

/** @param {boolean} on */
function measuring(on) {
  measureButton.hidden = on;
  cancelButton.hidden = !on;
  bar.hidden = !on;
  if (on) delete document.documentElement.dataset.job;
}

/**
 * @param {string} name
 * @param {any} data
 */
function heard(name, data) {
  if (name === 'state') {
    if (data.state === 'queued') status(data.ahead ? `waiting behind ${data.ahead} others` : 'waiting');
    else if (data.state === 'running') status('measuring');
  } else if (name === 'progress') {
    bar.max = data.total || 1;
    bar.value = data.done;
    status(`${data.phase} ${data.done} of ${data.total}`);
  } else if (name === 'running') viewer?.mark(data.path ?? null);
  else if (name === 'rows') viewer?.times(data.rows, `so far: median of ${data.rounds} forwards`);
}

function stopListening() {
  listening?.abort();
  listening = null;
  job = null;
}

// --- records -------------------------------------------------------------------------------

/** @typedef {{id: string, path: string, kind: string, model: string, input: string, device: string | null, measured_at: string | null, layers: number, problem?: string | null}} Listed */

async function records() {
  /** @type {Listed[]} */
  const found = await (await ask('/records')).json();
  if (!found.length) return false;
  const box = the('.records');
  const compare = h('button', { type: 'button', class: 'primary' }, 'Compare the two chosen');
  compare.disabled = true;
  /** @type {string[]} */ let chosen = [];
  const rows = found.map((record) => {
    if (record.problem) return h('tr', {}, h('td', {}), h('th', { scope: 'row' }, record.path), h('td', { colspan: '5', class: 'problem' }, record.problem));
    const tick = h('input', { type: 'checkbox', 'aria-label': `compare ${record.path}` });
    tick.disabled = record.kind !== 'profile';
    tick.addEventListener('change', () => {
      chosen = tick.checked ? [...chosen, record.id] : chosen.filter((id) => id !== record.id);
      compare.disabled = chosen.length !== 2;
    });
    const open = h('button', { type: 'button', class: 'link' }, record.path);
    open.addEventListener('click', () => openRecord(record.id));
    const cells = [record.kind, record.model, record.input, record.device ?? '', record.measured_at ?? '', String(record.layers)];
    return h('tr', {}, h('td', {}, tick), h('th', { scope: 'row' }, open), ...cells.map((text) => h('td', {}, text)));
  });
  compare.addEventListener('click', () => openComparison(chosen[0], chosen[1]));
  const names = ['Compare', 'Record', 'Kind', 'Model', 'Input', 'Device', 'Date', 'Rows'];
  const head = h('tr', {}, ...names.map((name) => h('th', { scope: 'col' }, name)));
  box.replaceChildren(h('h1', {}, 'Records'), h('p', {}, 'Open one, or choose two profiles of the same work, the older first. ', compare), h('table', {}, h('thead', {}, head), h('tbody', {}, ...rows)));
  return true;
}

/** @param {string} id */
function openRecord(id) {
  return trying(async () => {
    show(await (await ask(`/records/${id}/document`)).json());
    address({ record: id, baseline: null, model: null, size: null, batch: null, job: null });
    measureButton.disabled = true;
  });
}

/** @param {string} baseline @param {string} contender */
function openComparison(baseline, contender) {
  return trying(async () => {
    show(await (await ask(`/comparison?baseline=${baseline}&contender=${contender}`)).json());
    address({ record: contender, baseline, model: null, size: null, batch: null, job: null });
    measureButton.disabled = true;
  });
}

// --- beginning -----------------------------------------------------------------------------

async function names() {
  const tasks = await (await ask('/models')).json();
  const all = new Set([...USUAL, ...Object.values(tasks).flat()]);
  the('#models').replaceChildren(...[...all].map((name) => h('option', { value: String(name) })));
}

async function begin() {
  const given = new URLSearchParams(location.hash.slice(1));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    structure();
  });
  // Choosing one from the list is enough.
  field('model').addEventListener('change', () => structure());
  measureButton.addEventListener('click', () => measure(true));
  cancelButton.addEventListener('click', () => job && trying(async () => void (await ask(`/jobs/${job}`, { method: 'DELETE' }))));
  the('.keys').addEventListener('click', () => /** @type {HTMLDialogElement} */ (the('.help')).showModal());
  trying(names, false);
  const [height, wide] = (given.get('size') ?? '').split('x');
  field('height').value = height ?? '';
  field('wide').value = wide ?? '';
  field('batch').value = given.get('batch') ?? '1';
  const [record, baseline, model, running] = ['record', 'baseline', 'model', 'job'].map((name) => given.get(name));
  if (record && baseline) await openComparison(baseline, record);
  else if (record) await openRecord(record);
  else if (model) {
    field('model').value = model;
    await structure();
    if (running) await trying(() => follow(running));
  }
  await trying(async () => {
    const some = await records();
    if (viewer) return;
    the('.records').hidden = !some;
    if (!the('.problem').textContent) status('choose a model, or type its name');
  }, false);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

begin();
