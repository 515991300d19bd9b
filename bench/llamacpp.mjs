// Drives llama.cpp as prebuilt in the npm package node-llama-cpp, for bench/vs_peers.py.
// usage: node llamacpp.mjs FOLDER MODEL N_PROMPT N_DECODE THREADS SEQUENCES    (FOLDER holds node_modules)
// Prints one JSON line: tokens/s of prefill, of decode from an empty context, "decode N" of N sequences of
// one context together, and resident bytes: at the peak, before the model and after loading it.
// SEQUENCES is like 1,8,16.
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
import {join} from "node:path";

const [folder, modelPath, ...numbers] = process.argv.slice(2);
const [nPrompt, nDecode, threads] = numbers.slice(0, 3).map(Number);
const counts = numbers[3].split(",").map(Number);
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

// Sequences decode together, which the context puts into one batch. Timed from the moment the last one has
// its first token to the moment the first one is done.
async function decodeTogether(n, count) {
  const own = await model.createContext({contextSize: nDecode + 64, batchSize: 512, threads,
    sequences: n});
  const all = Array.from({length: n}, () => own.getSequence());
  let firsts = 0, made = 0, start = 0n, end = 0n;
  await Promise.all(all.map(async (one, i) => {
    let mine = 0;
    for await (const _ of one.evaluate([ids[i]], {temperature: 0, yieldEogToken: true})) {
      if (start && !end) made++;
      if (mine === 0 && ++firsts === n) start = process.hrtime.bigint();
      if (++mine > count) break;
    }
    end ||= process.hrtime.bigint();
  }));
  await own.dispose();
  return made / (Number(end - start) / 1e9);
}

await prefill(64);
await decode(8);
const out = {prefill: await prefill(nPrompt), threads: context.currentThreads, rss_before: before,
  rss_loaded: loaded};
await sequence.clearHistory();
out.decode = await decode(nDecode);
await context.dispose();
out.peak = process.resourceUsage().maxRSS * 1024;
out.peak_without_node = out.peak - before;
for (const n of counts.filter(n => n > 1)) {
  await decodeTogether(n, 4);
  out[`decode ${n}`] = await decodeTogether(n, nDecode);
}
console.log(JSON.stringify(out));
await model.dispose();
await llama.dispose();
process.exit(0);
