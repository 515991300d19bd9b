// Numbers as people read them.

export function duration(seconds) {
  if (!(seconds >= 0)) return '';
  if (seconds < 10) return `${Math.max(seconds, 0.1).toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** Time left is an estimate: whole seconds, so that it does not flicker. */
export function timeLeft(seconds) {
  return seconds < 10 ? `${Math.max(1, Math.round(seconds))} s` : duration(seconds);
}

export function bytes(n) {
  if (!(n >= 0)) return '';
  for (const unit of ['B', 'kB', 'MB', 'GB']) {
    if (n < 999.5) return `${n < 10 && unit !== 'B' ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1000;
  }
  return `${n.toFixed(1)} TB`;
}

export const percent = (share) => `${Math.floor(share * 100)} %`;
export const count = (n, one, many = `${one}s`) =>
  `${n.toLocaleString('en')} ${n === 1 ? one : many}`;
