// By keys alone: signed in, the newest alert opened and resolved, its host's isolation asked for and
// left. No mouse anywhere.
import { ask, BASE, check, run, shot } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: password } = process.env;
/** Steps of Tab to anything on a page. */
const STEPS = 80;

await run(async (page) => {
  const { keyboard } = page;
  const at = () => page.evaluate(() => document.activeElement?.textContent?.trim() ?? "");
  const tabTo = async (name) => {
    for (let step = 0; step < STEPS; step += 1) {
      if ((await at()) === name) return;
      await keyboard.press("Tab");
    }
    check(false, `Tab comes to ${name}; it is at ${await at()}`);
  };
  await page.goto(BASE);
  await page.getByRole("button", { name: "Sign in", exact: true }).waitFor();
  await keyboard.type(user);
  await keyboard.press("Tab");
  await keyboard.type(password);
  await keyboard.press("Enter");
  await page.getByText("Needs a person now").waitFor();
  const name = await ask("eicar");

  await keyboard.press("g");
  await keyboard.press("a");
  const row = page.getByRole("row").filter({ hasText: name }).first();
  await row.waitFor();
  await keyboard.press("j");
  await page.locator("[data-table]:focus").waitFor();
  await shot(page, "list");
  await keyboard.press("Enter");
  await page.getByText("What happened").waitFor();

  await tabTo("Resolve");
  await keyboard.press("Enter");
  const choice = page.getByRole("menuitem", { name: "False positive", exact: true });
  await choice.waitFor();
  for (let step = 0; step < STEPS && (await at()) !== "False positive"; step += 1) await keyboard.press("ArrowDown");
  await shot(page, "resolve");
  await keyboard.press("Enter");
  await page.locator(".state-resolved").first().waitFor();

  await tabTo("Isolate");
  await keyboard.press("Enter");
  const dialog = page.getByRole("dialog");
  await dialog.getByText("All traffic of 1 host stops at once").waitFor();
  await dialog.getByRole("textbox", { name: "Reason", exact: true }).and(page.locator(":focus")).waitFor();
  await keyboard.type("not today");
  check((await dialog.getByRole("textbox", { name: "Reason", exact: true }).inputValue()) === "not today", "the reason is typed");
  await shot(page, "isolate");
  await keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  await page.waitForFunction(() => document.activeElement?.textContent?.trim() === "Isolate");
});
