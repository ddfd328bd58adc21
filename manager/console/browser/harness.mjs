// A browser for a test: Debian's Chromium, a folder of its own, and a record of everything that went
// wrong in it. Whoever started this is told of steps on standard output, and answers on standard
// input; what the test needs stands in the environment.
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

export const BASE = process.env.CONSOLE_URL;
const SHOTS = process.env.CONSOLE_SHOTS;
const WIDE = { width: 1280, height: 800 };

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the other side do something, and waits until it says what came of it. */
export async function ask(step) {
  console.log(`> ${step}`);
  const { value, done } = await lines.next();
  if (done) throw new Error(`nobody answered ${step}`);
  return value;
}

export function check(holds, what) {
  if (!holds) throw new Error(`not so: ${what}`);
}

/** What a page may complain of: the sign-in is asked for before anybody is signed in. */
const EXPECTED = [/status of 401/];

export async function run(body) {
  mkdirSync(SHOTS, { recursive: true });
  const folder = mkdtempSync(join(tmpdir(), "holdfast-browser-"));
  const faults = [];
  const context = await chromium.launchPersistentContext(folder, {
    executablePath: process.env.CONSOLE_BROWSER,
    headless: true,
    viewport: WIDE,
    ignoreHTTPSErrors: true,
    acceptDownloads: true,
    locale: "en-GB",
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    ],
  });
  const watch = (page) => {
    page.setDefaultTimeout(30_000);
    page.on("console", (message) => {
      const text = message.text();
      if (message.type() === "error" && !page.expected?.some((one) => one.test(text)) && !EXPECTED.some((one) => one.test(text)))
        faults.push(`console: ${text}`);
    });
    page.on("pageerror", (error) => faults.push(`page: ${error.stack ?? error}`));
    page.on("dialog", (dialog) => {
      faults.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
  };
  context.on("page", watch);
  await context.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) =>
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile ?? ""}:${event.lineNumber}`));
  });
  const page = context.pages()[0] ?? (await context.newPage());
  watch(page);
  let failed = null;
  try {
    await body(page, context);
  } catch (error) {
    failed = error;
    await page.screenshot({ path: join(SHOTS, "failed.png") }).catch(() => undefined);
  }
  await context.close();
  rmSync(folder, { recursive: true, force: true });
  for (const fault of faults) console.error(fault);
  if (failed) console.error(failed);
  process.exit(failed || faults.length ? 1 : 0);
}

/** Keeps how the page looks. */
export async function shot(page, name) {
  // What moves has come to rest, but for what never does.
  await page.evaluate(() => {
    const ending = document.getAnimations().filter((one) => one.effect?.getComputedTiming().endTime !== Infinity);
    return Promise.all(ending.map((one) => one.finished.catch(() => null)));
  });
  await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** Nothing that keeps people out: what axe calls serious or critical. */
async function accessible(page, name) {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
    const grave = violations.filter((one) => one.impact === "serious" || one.impact === "critical");
    return grave.flatMap((one) => one.nodes.map((node) => `${one.id}: ${node.target.join(" ")}: ${node.any[0]?.message ?? one.help}`));
  });
  check(found.length === 0, `${name} is accessible:\n${found.slice(0, 10).join("\n")}`);
}

/** The same, in light and dark, wide and as on a phone; nobody is kept out of any of them. */
export async function shots(page, name) {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize(WIDE);
    await shot(page, `${name}-${scheme}`);
    await accessible(page, `${name} (${scheme})`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 390, height: 844 });
  await shot(page, `${name}-phone`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  check(wide <= 390, `${name} fits a phone: ${wide}`);
  await accessible(page, `${name} (phone)`);
  await page.setViewportSize(WIDE);
}

export async function signIn(page, name, password) {
  await page.goto(BASE);
  await page.getByLabel("Name", { exact: true }).fill(name);
  await page.getByLabel("Password", { exact: true }).fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** Signs in by a one-time password, which is changed at once. */
export async function enter(page, name, first, password) {
  await signIn(page, name, first);
  await page.getByText("Choose a password").waitFor();
  await page.getByLabel("Password now").fill(first);
  await page.getByLabel("New password", { exact: true }).fill(password);
  await page.getByLabel("New password again").fill(password);
  await page.getByRole("button", { name: "Change and go on" }).click();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

export async function signOut(page, name) {
  await page.getByRole("button", { name }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
}

/** What a host chose is text: no picture of it, nothing turned round. */
export async function unharmed(page, what) {
  check((await page.locator("img").count()) === 0, `${what}: a text of a host is no markup`);
  check(!(await page.locator("body").textContent()).includes("\u202e"), `${what}: nothing turns text round`);
}
