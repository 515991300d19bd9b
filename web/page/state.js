// Observable values: the page's whole state management.
import { useLayoutEffect, useState } from 'preact/hooks';

/** A value that tells its listeners when another one is put in its place. Values are never changed
 *  in place, so that `===` says whether a view must be drawn again. */
export function observable(value) {
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      if (next === value) return;
      value = next;
      for (const listener of [...listeners]) listener(value);
    },
    update(change) {
      this.set(change(value));
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The current value, as a hook; the component is drawn again when what `pick` takes of it changes. */
export function useValue(source, pick = (value) => value) {
  const picked = pick(source.get());
  const [, redraw] = useState(0);
  useLayoutEffect(() => {
    let last = picked;
    const check = () => {
      const now = pick(source.get());
      if (now !== last) {
        last = now;
        redraw((n) => n + 1);
      }
    };
    check();
    return source.subscribe(check);
  });
  return picked;
}
