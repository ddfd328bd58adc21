// What people wait for, measured inside the page. CONSOLE_PART names the part; each figure is told as
// `figure NAME VALUE`.
import { ask, BASE, check, run } from "./harness.mjs";

const { CONSOLE_PART: part, CONSOLE_USER: user, CONSOLE_PASSWORD: password } = process.env;
/** Alerts timed. */
const ALERTS = 20;
/** Turns of the wheel, and places that the scroll bar is drawn to. */
const TURNS = 60;
const PLACES = 25;

const tell = (name, value) => ask(`figure ${name} ${value}`);

/** By a cookie: nothing of the page is fetched. */
async function enter(page) {
  const answer = await page.context().request.post(`${BASE}/api/v1/session`, { data: { name: user, password } });
  check(answer.ok(), `signed in: ${answer.status()}`);
}

/** When the largest thing on the page was painted, ms after its address was asked for. */
const painted = (page) =>
  page.evaluate(() => new Promise((resolve) => {
    new PerformanceObserver((list) => resolve(Math.max(...list.getEntries().map((one) => one.startTime))))
      .observe({ type: "largest-contentful-paint", buffered: true });
  }));

/** Each load begins with an empty cache. */
async function paint(page, context) {
  const cdp = await context.newCDPSession(page);
  await page.goto(BASE);
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  await tell("paint", await painted(page));
  await enter(page);
  await page.goto("about:blank");
  await cdp.send("Network.clearBrowserCache");
  await page.goto(BASE);
  await page.getByText("Needs a person now").waitFor();
  await page.getByText("Nobody is needed").waitFor();
  await tell("overview", await painted(page));
  const bytes = await page.evaluate(() =>
    performance.getEntriesByType("resource").filter((one) => new URL(one.name).pathname.endsWith(".js")).reduce((sum, one) => sum + one.encodedBodySize, 0));
  check(bytes > 0, "there are scripts");
  await tell("script", bytes / 1024);
}

async function alert(page) {
  await enter(page);
  await page.goto(`${BASE}/alerts`);
  await page.getByText("No open alerts").or(page.getByRole("grid")).waitFor();
  for (let number = 1; number <= ALERTS; number += 1) {
    const begin = Number(await ask(`eicar ${number}`));
    // Asked before each frame; what is there is painted with it.
    const shown = await page.waitForFunction((name) => document.querySelector(".rows")?.textContent.includes(name) && Date.now(), `eicar${number}.com`);
    await tell("alert", (await shown.jsonValue()) - begin);
  }
}

async function isolate(page) {
  await enter(page);
  await page.goto(BASE);
  let clicks = 0;
  const click = async (what) => {
    await what.click();
    clicks += 1;
  };
  await click(page.getByRole("link", { name: /eicar\.com/ }).first());
  await click(page.getByRole("button", { name: "Isolate", exact: true }));
  // The reason has the cursor.
  await page.getByRole("button", { name: "Isolate 1 host" }).waitFor();
  await page.keyboard.type("a bench");
  await click(page.getByRole("button", { name: "Isolate 1 host" }));
  await page.getByText("Verified").first().waitFor();
  await tell("clicks", clicks);
}

/** Does something; the longest task of the page meanwhile, from 50 ms on. */
async function longest(page, name, act) {
  await page.evaluate(() => {
    window.tasks = [];
    window.watching = new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((one) => one.duration)));
    window.watching.observe({ type: "longtask" });
  });
  await act();
  // Two frames later everything that was done is told.
  const tasks = await page.evaluate(() => new Promise((resolve) =>
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => {
      window.tasks.push(...window.watching.takeRecords().map((one) => one.duration));
      window.watching.disconnect();
      resolve(window.tasks);
    })))));
  if (tasks.length) console.log(`${name}: ${tasks.map(Math.round).join(" ")}`);
  await tell(name, Math.max(0, ...tasks));
}

async function scroll(page) {
  const { alerts, hosts } = JSON.parse(await ask("size"));
  await enter(page);
  page.setDefaultTimeout(300_000);
  const grid = page.getByRole("grid");
  const count = async () => Number(await grid.getAttribute("aria-rowcount")) - 1;
  const toTheEnd = async (whole) => {
    await grid.focus();
    for (let before = performance.now(); (await count()) < 0; ) {
      await page.keyboard.press("End");
      if (performance.now() - before > 600_000) throw new Error("no end");
    }
    check((await count()) >= whole, `${await count()} of ${whole} rows`);
  };
  const wheel = async () => {
    await grid.hover();
    for (let turn = 0; turn < TURNS; turn += 1) await page.mouse.wheel(0, turn % 3 === 2 ? -400 : 900);
  };
  const jump = () =>
    page.evaluate(async (places) => {
      const table = document.querySelector("[data-table]");
      for (let place = 0; place < places; place += 1) {
        table.scrollTop = ((place * 7919) % places) / places * table.scrollHeight;
        await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      }
    }, PLACES);
  const keys = async () => {
    await grid.focus();
    for (const key of ["Home", "End", "PageUp", "PageUp", "PageDown", "ArrowUp", "ArrowUp", "Home", "PageDown", "ArrowDown", "Space", "Shift+PageDown"])
      await page.keyboard.press(key);
  };
  const find = async (text) => {
    await page.locator("[data-find]").fill(text);
    await page.getByText(/^1 row$/).waitFor();
  };

  await page.goto(`${BASE}/alerts?state=any`);
  await grid.waitFor();
  await longest(page, "wheel", wheel);
  await longest(page, "end", () => toTheEnd(alerts));
  await longest(page, "jump", jump);
  await longest(page, "keys", keys);
  // Many rows change while all are loaded and the first are looked at.
  await longest(page, "burst", async () => {
    await page.keyboard.press("Home");
    await ask("burst");
    await wheel();
  });
  await longest(page, "filter", async () => {
    await find("file-001234");
    await page.locator("[data-find]").fill("");
    await page.getByText(/^1 row$/).waitFor({ state: "hidden" });
    await page.getByRole("textbox", { name: "Level" }).click();
    await page.getByRole("option", { name: "High" }).click();
    await page.waitForFunction(() => [...document.querySelectorAll(".rows .level-low, .rows .level-critical")].length === 0 && document.querySelector(".rows .level-high"));
    await wheel();
  });
  await page.goto(`${BASE}/hosts`);
  await grid.waitFor();
  await longest(page, "hosts", async () => {
    await wheel();
    await toTheEnd(hosts);
    await jump();
    await keys();
    await find("host04711");
  });
}

await run({ paint, alert, isolate, scroll }[part]);
