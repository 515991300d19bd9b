// One import for what every view needs: the template tag and the hooks.
import { h } from 'preact';
import htm from 'htm';

export const html = htm.bind(h);
export {
  useEffect,
  useErrorBoundary,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from 'preact/hooks';
