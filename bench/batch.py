#!/usr/bin/env python3
"""Eight chats at once against one: tokens per second of all together, and whether each text is equal to
the one that the same chat gives alone.

    bench/batch.py [--chats 8] [--tokens 96] [--runs 3]      target: 2.5 times, all texts equal

Greedy answers of a fixed length. Every prompt is asked once before, so that its prefix is cached in both
cases; a rate counts from the first token of the first chat to the last token of the last.
"""
import argparse
import threading

from common import MODEL_ID, Server, machine, spread

PROMPTS = ["Tell me about the sea.", "How does a bicycle stay upright?", "Write a poem about rain.",
           "What is a compiler?", "Give me a recipe for soup.", "Why is the sky blue?",
           "Describe a quiet street at night.", "Explain what an atom is.", "Who was Ada Lovelace?",
           "What do bees do in winter?", "How are glaciers made?", "Tell me a short story.",
           "What is the use of salt?", "How do boats float?", "Name a few trees.", "What is music?"]


def at_once(server, prompts, tokens):
    answers = [None] * len(prompts)

    def ask(i):
        answers[i] = server.chat(prompts[i], tokens)
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers


def rate(answers):
    made = sum(a["tokens"] for a in answers)
    return made / (max(a["end"] for a in answers) - min(a["first"] for a in answers))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--chats", type=int, default=8)
    p.add_argument("--tokens", type=int, default=96)
    p.add_argument("--runs", type=int, default=3)
    o = p.parse_args()
    prompts = [PROMPTS[i % len(PROMPTS)] + " " * (i // len(PROMPTS)) for i in range(o.chats)]
    print(machine())
    with Server(preload=MODEL_ID) as s:
        s.wait_for("/readyz", pause=0.02)
        alone_texts = [s.chat(q, o.tokens)["text"] for q in prompts]
        alone, together, equal = [], [], 0
        for _ in range(o.runs):
            alone += [rate([s.chat(q, o.tokens)]) for q in prompts[:3]]
            answers = at_once(s, prompts, o.tokens)
            together.append(rate(answers))
            equal += sum(a["text"] == b for a, b in zip(answers, alone_texts))
    middle = sorted(alone)[len(alone) // 2]
    print("median (lowest-highest, runs)")
    print(f"1 chat, tokens/s           {spread(alone)}")
    print(f"{o.chats} chats, tokens/s in all  {spread(together)}")
    print(f"ratio                      {sorted(together)[len(together) // 2] / middle:.2f}")
    print(f"texts equal to alone       {equal} of {o.runs * o.chats}")


if __name__ == "__main__":
    main()
