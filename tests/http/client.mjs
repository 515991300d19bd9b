// The openai package for npm against a server: node client.mjs BASE_URL MODEL; one JSON object out.
import OpenAI from 'openai';

const [, , baseURL, model] = process.argv;
const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });
const messages = [{ role: 'user', content: 'hi' }];
const common = { model, messages, max_tokens: 16, temperature: 0 };
const out = { models: [] };

for await (const m of client.models.list()) out.models.push(m.id);
const whole = await client.chat.completions.create(common);
out.whole = whole.choices[0].message.content;
out.finish = whole.choices[0].finish_reason;

const stream = await client.chat.completions.create(
  { ...common, stream: true, stream_options: { include_usage: true } });
out.streamed = '';
for await (const chunk of stream) {
  out.streamed += chunk.choices[0]?.delta?.content ?? '';
  if (chunk.usage) out.usage = chunk.usage.total_tokens;
}
try {
  await client.chat.completions.create({ ...common, model: 'no-such-model-here' });
} catch (error) {
  out.missing = error.code;
}
console.log(JSON.stringify(out));
