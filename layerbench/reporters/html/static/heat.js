// Colour by size, always beside a number or a length. From light to dark, also for colour-blind eyes.

const LIGHT = ['#fff7e6', '#fee3b4', '#fdc57d', '#f99a4f', '#e66a33', '#c13f24', '#8c1d18'];
const NONE = '#d9dce1';

export class Heat {
  /** @param {(number | null)[]} values @param {boolean} log */
  constructor(values, log) {
    let low = Infinity;
    let high = 0;
    for (const value of values) {
      if (value !== null && value > 0) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    this.low = low === Infinity ? 0 : low;
    this.high = high;
    this.log = log && high > 0;
  }

  /**
   * Where a value lies, 0 to 1.
   * @param {number} value
   */
  place(value) {
    if (!(value > 0) || this.high <= 0) return 0;
    if (!this.log) return value / this.high;
    // Below a ten-thousandth of the largest nothing needs telling apart.
    const floor = Math.max(this.low, this.high * 1e-4);
    if (floor >= this.high) return 1;
    return Math.max(0, Math.log(value / floor) / Math.log(this.high / floor));
  }

  /** @param {number | null} value @returns {string} */
  colour(value) {
    if (value === null || !(value > 0)) return NONE;
    const step = Math.min(LIGHT.length - 1, Math.floor(this.place(value) * LIGHT.length));
    return LIGHT[step];
  }

  /**
   * The text that can be read on a colour.
   * @param {string} colour
   */
  static ink(colour) {
    return LIGHT.indexOf(colour) >= 5 ? '#ffffff' : '#1b1b1b';
  }

  /** Steps of the legend: colours, and the values that they begin at. */
  steps() {
    const floor = Math.max(this.low, this.high * 1e-4);
    if (floor === this.high) return [{ colour: this.colour(this.high), from: this.high }];
    return LIGHT.map((colour, index) => {
      const part = index / LIGHT.length;
      const from = this.log ? floor * (this.high / (floor || 1)) ** part : this.high * part;
      return { colour, from };
    });
  }
}
