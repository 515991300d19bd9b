// Debian's Chromium, driven by playwright-core; a fresh profile each time, nothing in the background.
import { mkdtempSync, rmSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const here = dirname(fileURLToPath(import.meta.url));

/** Calls `use` with a browser context; options as playwright's (viewport, colorScheme, …). */
export async function withBrowser(options, use) {
    const profile = mkdtempSync(join(tmpdir(), 'ashley-chromium-'));
    const context = await chromium.launchPersistentContext(profile, {
        executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
        headless: true,
        args: [
            '--no-sandbox',
            '--disable-gpu',
            '--disable-quic',
            '--no-first-run',
            '--disable-dev-shm-usage',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
        ],
        ...options,
    });
    try {
        return await use(context);
    } finally {
        await context.close();
        rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
    }
}

/** Starts mock.py; resolves to {url, port, end()} when it listens. */
export async function startMock(...args) {
    const child = spawn('python3', [join(here, 'mock.py'), ...args], {
        stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = new Promise((resolve) => {
        child.once('exit', resolve);
    });
    const line = await Promise.race([
        new Promise((resolve) => {
            createInterface({ input: child.stdout }).once('line', resolve);
        }),
        ended.then((code) => {
            throw new Error(`mock.py ended with ${code}`);
        }),
    ]);
    const port = Number(line.split(' ').at(-1));
    return {
        url: `http://127.0.0.1:${port}`,
        port,
        end: () => {
            child.kill();
            return ended;
        },
    };
}
