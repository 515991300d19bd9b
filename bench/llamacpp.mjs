// Drives llama.cpp as prebuilt in the npm package node-llama-cpp, for bench/vs_peers.py.
// usage: node llamacpp.mjs FOLDER MODEL N_PROMPT N_DECODE THREADS    (FOLDER holds node_modules)
// Prints one JSON line: tokens/s of prefill, of decode from an empty context and of decode after the
// prompt, and resident bytes before the model, after loading it and at the end.
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
import {join} from "node:path";

const [folder, modelPath, ...numbers] = process.argv.slice(2);
const [nPrompt, nDecode, threads] = numbers.map(Number);
const require = createRequire(join(folder, "package.json"));
const entry = require.resolve("node-llama-cpp").replace(/dist\/.*$/, "dist/index.js");
const {getLlama, LlamaLogLevel} = await import(pathToFileURL(entry).href);

const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error,
  maxThreads: threads});
const before = process.memoryUsage.rss();
const model = await llama.loadModel({modelPath, gpuLayers: 0});
const context = await model.createContext({contextSize: nPrompt + nDecode + 64, batchSize: 512,
  threads, sequences: 1});
const sequence = context.getSequence();
const loaded = process.memoryUsage.rss();

// Any ids do for speed; these are ordinary words of the vocabulary and never the end of the text.
const ids = Array.from({length: nPrompt}, (_, i) => 1000 + (i * 7919) % 20000);

async function prefill(count) {
  await sequence.clearHistory();
  const start = process.hrtime.bigint();
  await sequence.evaluateWithoutGeneratingNewTokens(ids.slice(0, count));
  return count / (Number(process.hrtime.bigint() - start) / 1e9);
}

// The first token is left out: it pays for the evaluation of the last prompt token.
async function decode(count) {
  let made = 0, start = 0n;
  for await (const _ of sequence.evaluate([ids[0]], {temperature: 0, yieldEogToken: true})) {
    if (made++ === 0) start = process.hrtime.bigint();
    if (made > count) break;
  }
  return (made - 1) / (Number(process.hrtime.bigint() - start) / 1e9);
}

await prefill(64);
await decode(8);
const prefillSpeed = await prefill(nPrompt);
const decodeAfter = await decode(nDecode);
await sequence.clearHistory();
const decodeEmpty = await decode(nDecode);
console.log(JSON.stringify({prefill: prefillSpeed, decode: decodeEmpty, decode_after: decodeAfter,
  threads: context.currentThreads, rss_before: before, rss_loaded: loaded,
  rss_end: process.memoryUsage.rss()}));
await context.dispose();
await model.dispose();
await llama.dispose();
process.exit(0);
