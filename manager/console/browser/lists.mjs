// Long lists: scrolled to the end, walked by keys, chosen from, exported, filtered, and kept current where
// they are looked at.
import { readFileSync } from "node:fs";
import { ask, BASE, check, run, shot, signIn } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: password } = process.env;

await run(async (page) => {
  await signIn(page, user, password);
  await page.getByText("Needs a person now").waitFor();
  const grid = page.getByRole("grid");
  const row = (text) => page.getByRole("row").filter({ hasText: text });
  const at = (text) => page.locator(".row.at").filter({ hasText: text });
  const toTheEnd = async (count) => {
    await grid.focus();
    const whole = page.getByText(count, { exact: true });
    for (let times = 0; times < 500 && !(await whole.isVisible()); times += 1) await page.keyboard.press("End");
    await whole.waitFor();
    await page.keyboard.press("End");
  };

  await page.goto(`${BASE}/alerts?state=any`);
  await page.getByText("200 rows and more").waitFor();
  await toTheEnd("1200 rows");
  await at("file-000000").waitFor();
  check((await page.getByRole("row").count()) < 100, "what is not on the screen is not drawn");
  await shot(page, "end");
  await page.keyboard.press("ArrowUp");
  await at("file-000001").waitFor();
  await page.keyboard.press("Home");
  await at("file-001199").waitFor();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.getByText("What happened").waitFor();
  await page.getByText("file-001198").first().waitFor();
  await page.goBack();

  // Chosen by keys and by the box; what is exported of them is whole.
  await row("file-001199").waitFor();
  await grid.focus();
  await page.keyboard.press("Space");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Shift+Space");
  await row("file-001195").getByRole("checkbox").click();
  await page.getByRole("region", { name: "3 chosen" }).waitFor();
  await page.getByRole("button", { name: "Export" }).click();
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("menuitem", { name: "As JSON" }).click()]);
  const chosen = JSON.parse(readFileSync(await download.path(), "utf8"));
  const paths = chosen.map((one) => one.evidence.path.slice(-10, -4)).join(" ");
  check(paths === "001199 001198 001195", paths);
  await page.keyboard.press("Escape");

  // Many change at once: what is looked at shows it, and stays where it is.
  await grid.focus();
  await page.keyboard.press("Home");
  for (let times = 0; times < 3; times += 1) await page.keyboard.press("PageDown");
  const place = () => grid.evaluate((one) => one.scrollTop);
  const before = await place();
  const seen = page.locator(".row.at .state-in_progress");
  check((await seen.count()) === 0, "nobody looks after it yet");
  await ask("burst");
  await seen.waitFor();
  check((await place()) === before, "the list stays where it is");
  await page.keyboard.press("End");
  await page.keyboard.press("Home");
  await page.locator(".row.at .state-in_progress").waitFor();

  await page.locator("[data-find]").fill("file-000123");
  await page.getByText("1 row", { exact: true }).waitFor();
  await row("file-000123").waitFor();
  await page.locator("[data-find]").fill("");
  await page.getByText("1 row", { exact: true }).waitFor({ state: "hidden" });
  await page.getByRole("textbox", { name: "Level", exact: true }).click();
  await page.getByRole("option", { name: "Critical", exact: true }).click();
  await page.locator(".rows .level-critical").first().waitFor();
  await page.locator(".rows .level-high").first().waitFor({ state: "detached" });
  await toTheEnd("300 rows");

  await page.goto(`${BASE}/hosts`);
  await page.getByText("200 rows and more").waitFor();
  await toTheEnd("450 rows");
  await at("host00449").waitFor();
  await page.locator("[data-find]").fill("host00123");
  await page.getByText("1 row", { exact: true }).waitFor();
  await row("host00123").waitFor();
});
