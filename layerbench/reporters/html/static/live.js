// The page of a running service: choose a model, see it at once, measure it, look at records.

import { h, the } from 'layerbench/dom';
import { chosen, settings } from 'layerbench/settings';
import { plural } from 'layerbench/units';
import { Viewer } from 'layerbench/viewer';

const API = '/api/v1';
const KEY = 'layerbench-key';
const RECORD = /^[0-9a-f]{16}$/;
const JOB = /^[0-9a-f]{32}$/;
// Of the address, what is shown; the rest is how it is looked at.
// In addresses from before there was a precision: the formats that it converts to.
/** @type {Record<string, string>} */
const OLDER = { float32: 'fp32', float16: 'fp16', bfloat16: 'bf16', float64: 'fp64' };

const WISHES = ['record', 'baseline', 'model', 'size', 'batch', 'precision', 'layout', 'mode'];
const USUAL = ['vit', 'deit', 'swin', 'resnet'];

/**
 * @typedef {object} Question
 * @property {string} architecture
 * @property {number} batch_size
 * @property {[number, number] | null} image_size
 * @property {string | null} precision
 * @property {boolean} channels_last
 * @property {string} mode
 */

/** @type {Viewer | null} */ let viewer = null;
/** @type {Question | null} */ let asked = null;
/** @type {AbortController | null} */ let listening = null;
/** @type {string | null} */ let job = null;
// Only the latest choice is shown, whatever is answered first.
let turn = 0;
/** What is being asked for. */
let pending = '';
/** What the address asks for, as it was last followed. */
let wished = '';
/** Where results are stored. */
let store = '';

const form = /** @type {HTMLFormElement} */ (the('.choose'));
/** @param {string} name */
const field = (name) => /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
const measureButton = /** @type {HTMLButtonElement} */ (the('[name=measure]'));
const cancelButton = /** @type {HTMLButtonElement} */ (the('[name=cancel]'));
const bar = /** @type {HTMLProgressElement} */ (the('.choose progress'));

/** @param {string} text */
const status = (text) => {
  if (the('.status').textContent !== text) the('.status').textContent = text;
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
    // Whoever asked at the same time may have it by now.
    if (sessionStorage.getItem(KEY) !== key) return ask(path, options);
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
  wished = JSON.stringify(WISHES.map((name) => given.get(name)));
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
  const height = Number(field('height').value) || Number(field('wide').value);
  const wide = Number(field('wide').value) || height;
  return {
    architecture: field('model').value.trim(),
    batch_size: Number(field('batch').value) || 1,
    image_size: height ? [height, wide] : null,
    ...settings(form).runs,
  };
}

/** @param {Question} wanted @returns {Record<string, string | null>} in the address */
function named(wanted) {
  return {
    model: wanted.architecture,
    batch: String(wanted.batch_size),
    size: wanted.image_size?.join('x') ?? null,
    precision: wanted.precision,
    layout: wanted.channels_last ? 'channels_last' : null,
    mode: wanted.mode === 'eval' ? null : wanted.mode,
  };
}

/** Whatever was begun before is no longer waited for; says whether that goes for the caller too. */
function anew() {
  const mine = (turn += 1);
  return () => mine !== turn;
}

async function structure() {
  const wanted = question();
  // To leave the field and to press the button may be one and the same wish.
  if (!wanted.architecture || pending === JSON.stringify(wanted)) return;
  pending = JSON.stringify(wanted);
  const stale = anew();
  status(`working out the structure of ${wanted.architecture}…`);
  measureButton.disabled = true;
  await trying(async () => {
    const doc = await (await post('/structures', wanted)).json();
    if (stale()) return;
    await leave();
    asked = wanted;
    address({ ...named(wanted), record: null, baseline: null, job: null });
    show(doc);
    status(plural(doc.rows.path.length, 'row'));
  });
  if (stale()) return;
  pending = '';
  measureButton.disabled = !asked;
}

// --- measuring -----------------------------------------------------------------------------

async function measure() {
  if (!form.reportValidity()) return;
  // What the form says now, not what it said when the tree was asked for.
  if (JSON.stringify(question()) !== JSON.stringify(asked)) await structure();
  if (!asked || JSON.stringify(question()) !== JSON.stringify(asked)) return;
  const stale = anew();
  const body = { ...asked, iterations: Number(field('rounds').value), ...settings(form).measured };
  measureButton.disabled = true;
  await trying(async () => {
    const found = await (await post('/profiles?refresh=true', body)).json();
    if (stale()) await ask(`/jobs/${found.id}`, { method: 'DELETE' });
    else await follow(found.id, stale);
  });
  measureButton.disabled = !asked;
}

/**
 * Show what a measurement says, to its end.
 * @param {string} id
 * @param {() => boolean} stale whether something else is looked at by now
 */
async function follow(id, stale) {
  job = id;
  address({ job: id });
  measuring(true);
  const mine = (listening = new AbortController());
  /** @type {Doc | null} */ let before = null;
  let ended = { state: '', reason: '' };
  try {
    for (let pause = 1; OPEN.includes(ended.state); pause = Math.min(2 * pause, MOST_PAUSE_S)) {
      try {
        const answer = await ask(`/jobs/${id}/events`, { signal: mine.signal });
        await events(answer, (name, data) => {
          if (stale()) return;
          if (name === 'state') ended = data;
          // To go back to if this comes to nothing.
          if (name === 'rows' && viewer?.doc) before = before ?? structuredClone(viewer.doc);
          heard(name, data);
          pause = 1;
        });
      } catch (error) {
        if (mine.signal.aborted || !(error instanceof TypeError)) throw error;
      }
      // All that is known is told again to who listens anew.
      if (OPEN.includes(ended.state)) await later(pause, mine.signal);
    }
    if (stale()) return;
    if (ended.state === 'done') {
      const doc = await (await ask(`/jobs/${id}/document`)).json();
      if (stale()) return;
      show(doc);
      const at = measuredAt(doc);
      status(`measured${at ? ` ${at}` : ''}, stored${store ? ` in ${store}` : ''}`);
    } else {
      if (before) show(before);
      if (ended.state === 'cancelled') status('cancelled');
      else problem(ended.reason || `the job is ${ended.state}`);
    }
    document.documentElement.dataset.job = ended.state;
  } finally {
    if (job === id) {
      job = null;
      measuring(false);
      viewer?.mark(null);
    }
  }
}

// Before anything is known, while it waits, and while it runs.
const OPEN = ['', 'queued', 'running'];
const MOST_PAUSE_S = 10;

/**
 * @param {number} seconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function later(seconds, signal) {
  return new Promise((done, failed) => {
    setTimeout(done, seconds * 1000);
    signal.addEventListener('abort', () => failed(new DOMException('no longer waited for', 'AbortError')));
  });
}

/** What is measured for nobody any more is not measured. */
async function leave() {
  const id = job;
  if (!id) return;
  job = null;
  listening?.abort();
  measuring(false);
  viewer?.mark(null);
  await ask(`/jobs/${id}`, { method: 'DELETE' });
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
    the('.count').textContent = `${data.done} of ${data.total}`;
    // Said aloud, so only the phase.
    status(data.phase);
  } else if (name === 'running') viewer?.mark(data.path ?? null);
  else if (name === 'rows') viewer?.times(data.rows, `so far: median of ${data.rounds} forwards`);
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
  return openStored(`/records/${id}/document`, { record: id, baseline: null });
}

/** @param {string} baseline @param {string} contender */
function openComparison(baseline, contender) {
  const path = `/comparison?baseline=${baseline}&contender=${contender}`;
  return openStored(path, { record: contender, baseline });
}

/**
 * @param {string} path
 * @param {Record<string, string | null>} at
 */
function openStored(path, at) {
  const stale = anew();
  return trying(async () => {
    const doc = await (await ask(path)).json();
    if (stale()) return;
    await leave();
    asked = null;
    address({ ...at, model: null, size: null, batch: null, precision: null, layout: null, mode: null, job: null });
    show(doc);
    const date = measuredAt(doc);
    status(date ? `a stored record, measured ${date}` : 'a stored record');
    measureButton.disabled = true;
  });
}

/** @param {Doc} doc @returns {string} when; empty where no machine was needed */
function measuredAt(doc) {
  return doc.source.find(([label]) => label === 'Date')?.[1] ?? '';
}

// --- beginning -----------------------------------------------------------------------------

/** Devices to choose from, and where results are stored. */
async function surroundings() {
  const server = await (await ask('/server')).json();
  store = server.database;
  const devices = Object.entries(server.devices).map(([place, called]) => h('option', { value: place }, `${place}, ${called}`));
  the('[name=device]').replaceChildren(h('option', { value: '' }, `usual (${server.device})`), ...devices);
}

async function names() {
  const tasks = await (await ask('/models')).json();
  const all = new Set([...USUAL, ...Object.values(tasks).flat()]);
  the('#models').replaceChildren(...[...all].map((name) => h('option', { value: String(name) })));
}

async function begin() {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    structure();
  });
  // What is wrong can be seen.
  form.addEventListener('invalid', () => the('.settings').setAttribute('open', ''), true);
  // Choosing one from the list is enough.
  field('model').addEventListener('change', () => structure());
  measureButton.addEventListener('click', () => measure());
  cancelButton.addEventListener('click', () => job && trying(async () => void (await ask(`/jobs/${job}`, { method: 'DELETE' }))));
  the('.keys').addEventListener('click', () => /** @type {HTMLDialogElement} */ (the('.help')).showModal());
  the('[name=records]').addEventListener('click', () => {
    the('.records').hidden = false;
    the('.viewer').hidden = true;
  });
  window.addEventListener('hashchange', () => wish());
  form.addEventListener('change', () => {
    the('.chosen').textContent = chosen(form);
  });
  trying(names, false);
  trying(surroundings, false);
  await wish();
  await trying(async () => {
    status(the('.status').textContent || 'reading records…');
    const some = await records();
    the('[name=records]').hidden = !some;
    if (the('.status').textContent === 'reading records…') status('');
    if (viewer) return;
    the('.records').hidden = !some;
    if (!the('.problem').textContent) status('choose a model, or type its name');
  }, false);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

/** What the address asks for. */
async function wish() {
  const given = new URLSearchParams(location.hash.slice(1));
  const [record, baseline, model, running] = ['record', 'baseline', 'model', 'job'].map((name) => given.get(name));
  const what = JSON.stringify(WISHES.map((name) => given.get(name)));
  if (viewer && what === wished) {
    viewer.reread();
    return;
  }
  // Whatever the address says besides is no record, and no part of another address.
  if ([record, baseline].some((id) => id && !RECORD.test(id))) problem('there is no such record');
  else if (record && baseline) await openComparison(baseline, record);
  else if (record) await openRecord(record);
  else if (model) {
    const [height, wide] = (given.get('size') ?? '').split('x');
    field('height').value = height ?? '';
    field('wide').value = wide ?? '';
    field('batch').value = given.get('batch') ?? '1';
    field('precision').value = given.get('precision') ?? OLDER[given.get('dtype') ?? ''] ?? '';
    field('channels_last').checked = given.get('layout') === 'channels_last';
    field('mode').value = given.get('mode') ?? 'eval';
    the('.chosen').textContent = chosen(form);
    field('model').value = model;
    await structure();
    const shown = turn;
    if (running && JOB.test(running) && asked?.architecture === model) await trying(() => follow(running, () => turn !== shown));
  }
}

begin();
