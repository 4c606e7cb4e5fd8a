// How a model runs and is measured, as the form says it.

/** @param {HTMLFormElement} form @param {string} name */
const field = (form, name) => /** @type {HTMLInputElement} */ (form.elements.namedItem(name));

/**
 * As the service is asked; what is left open is its choice.
 * @param {HTMLFormElement} form
 */
export function settings(form) {
  return {
    runs: {
      precision: field(form, 'precision').value || null,
      channels_last: field(form, 'channels_last').checked,
      mode: field(form, 'mode').value || 'eval',
    },
    measured: {
      warmup: Number(field(form, 'warmup').value),
      threads: Number(field(form, 'threads').value) || null,
      device: field(form, 'device').value || null,
    },
  };
}

/**
 * What differs from the usual, in words.
 * @param {HTMLFormElement} form
 */
export function chosen(form) {
  const { runs, measured } = settings(form);
  const words = [runs.precision, runs.channels_last && 'channels last', runs.mode !== 'eval' && runs.mode, measured.device, measured.threads && `${measured.threads} threads`];
  const said = words.filter(Boolean).join(', ');
  return said && `(${said})`;
}
