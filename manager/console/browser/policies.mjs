// A policy from its first line to the host that runs it: text and forms of one document, refused where
// it is wrong, rolled out, compared, gone back to; and who may only look.
import { ask, BASE, check, run, shot, shots, signIn, signOut, unharmed } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: password, CONSOLE_HOST: host } = process.env;
const dialog = (page) => page.getByRole("dialog");
const NAME = "web <img src=x onerror=alert(1)>";
const COMMENT = "# ours: <img src=x onerror=alert(1)> \u202edne";

await run(async (page) => {
  await signIn(page, user, password);
  await page.getByText("Needs a person now").waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("p");
  await page.getByText("No policies").waitFor();
  await shots(page, "none");
  await page.getByRole("button", { name: "Make a policy" }).first().click();
  await dialog(page).getByLabel("Policy", { exact: true }).fill(NAME);
  await dialog(page).getByRole("button", { name: "Make a policy" }).click();
  await page.getByText("No document yet").first().waitFor();
  await page.getByRole("button", { name: "Choose groups" }).click();
  await dialog(page).getByRole("textbox", { name: "Groups" }).fill("tests");
  await page.keyboard.press("Enter");
  await dialog(page).getByLabel("Reason", { exact: true }).fill("a test");
  await dialog(page).getByRole("button", { name: "Choose groups" }).click();
  await dialog(page).waitFor({ state: "hidden" });
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await dialog(page).getByLabel("Stages", { exact: true }).fill("50, 20");
  page.expected = [/status of 400/];
  await dialog(page).getByRole("button", { name: "Change", exact: true }).click();
  await dialog(page).getByRole("alert").filter({ hasText: "stages: percents that grow" }).waitFor();
  page.expected = [];
  await dialog(page).getByLabel("Stages", { exact: true }).fill("50, 100");
  await dialog(page).getByLabel("Each holds for, minutes").fill("0");
  await dialog(page).getByRole("button", { name: "Change", exact: true }).click();
  await page.getByText("50 % → 100 %").first().waitFor();

  // Text and forms are one document, and what is wrong is told at its line.
  await page.getByRole("link", { name: "Write its document" }).click();
  const text = page.getByRole("textbox", { name: "Document" });
  const put = page.getByRole("button", { name: "Put version 1" });
  await text.fill(`${COMMENT}\n[on_access]\nmod = "block"\n`);
  await page.getByRole("button", { name: "Line 3" }).waitFor();
  await page.getByText("unknown field `mod`").waitFor();
  check(await put.isDisabled(), "what is wrong is not put");
  await page.getByText("Lines with characters that are not seen, or that change the order of text: 1", { exact: true }).waitFor();
  await shots(page, "wrong");
  await page.getByRole("button", { name: "Line 3" }).click();
  check(await text.evaluate((one) => one.selectionStart === one.value.indexOf("mod =")), "the cursor is where it is wrong");
  await text.fill(`${COMMENT}\n[on_access\n`);
  await page.getByText("The text cannot be read").waitFor();
  await text.fill(`${COMMENT}\n[on_access]\nmode = "detect"\n`);
  await page.getByText("on_access.mode is detect: nothing is denied").waitFor();

  await page.getByRole("button", { name: "Add a schedule" }).click();
  const schedule = page.getByRole("group", { name: "scan-1" });
  await schedule.getByLabel("Every", { exact: true }).fill("3 days at 02:30");
  await schedule.getByLabel("Share of a core, percent").fill("20");
  check((await text.inputValue()).includes('every = "3 days at 02:30"'), "a form writes into the text");
  await schedule.getByLabel("Every", { exact: true }).fill("3 fortnights");
  await page.getByText("is no schedule").waitFor();
  await schedule.getByLabel("Every", { exact: true }).fill("3 days at 02:30");
  await page.getByText("The manager takes this document.").waitFor();
  await shots(page, "schedules");
  await page.getByText("Models", { exact: true }).click();
  await page.getByLabel("Find a model").fill("Network Sniffing");
  await page.getByRole("switch", { name: "Network Sniffing" }).uncheck();
  check((await text.inputValue()).includes('off = ["Network Sniffing"]'), await text.inputValue());
  await page.getByLabel("Find a model").fill("Clear Command History");
  await page.getByRole("textbox", { name: "Response to Clear Command History" }).click();
  await page.getByRole("option", { name: "kill", exact: true }).click();
  await page.keyboard.press("Escape");
  await shots(page, "models");
  await page.getByText("Protection", { exact: true }).click();
  await page.getByLabel("Never held: paths").fill("/srv/cache/**\n/srv/<b>/**");
  await page.getByRole("textbox", { name: "Mode" }).click();
  await page.getByRole("option", { name: "Block", exact: true }).click();
  await page.getByText("The manager takes this document.").waitFor();
  await shots(page, "general");
  const written = await text.inputValue();
  for (const part of [COMMENT, 'mode = "block"', 'off = ["Network Sniffing"]', "Clear Command History", '"/srv/<b>/**"', "[[scan.schedule]]", "cpu_share = 20"])
    check(written.includes(part), `${part} in\n${written}`);
  await page.getByLabel("Reason", { exact: true }).fill("first <b>rules</b>");
  await put.click();

  // It comes to the host, which says that it runs it.
  await page.getByText("1 of 1 hosts run it").waitFor();
  await page.getByText("Everywhere", { exact: true }).first().waitFor();
  const rollout = page.getByRole("link").filter({ hasText: host });
  await rollout.filter({ hasText: "runs version 1" }).waitFor();
  await unharmed(page, "the policy");
  await shots(page, "policy");
  check((await ask("schedules")) === "scan-1", "the host has the schedule");

  // Another version, compared and gone back from; the page says what it changes for the host.
  await page.getByRole("link", { name: "Edit", exact: true }).click();
  await text.fill((await text.inputValue()).replace('mode = "block"', 'mode = "detect"'));
  await page.getByLabel("Reason", { exact: true }).fill("too strict");
  await page.getByRole("button", { name: "Put version 2" }).click();
  await rollout.filter({ hasText: "runs version 2" }).waitFor();
  await page.locator(".diff .added").filter({ hasText: 'mode = "detect"' }).first().waitFor();
  await page.locator(".diff .taken").filter({ hasText: 'mode = "block"' }).first().waitFor();
  await page.getByText("on_access.mode is detect: nothing is denied").waitFor();
  await shots(page, "diff");
  await page.getByRole("button", { name: "Go back to version 1" }).click();
  await dialog(page).locator(".diff .added").filter({ hasText: 'mode = "block"' }).waitFor();
  await dialog(page).getByLabel("Reason", { exact: true }).fill("back again");
  await dialog(page).getByRole("button", { name: "Go back", exact: true }).click();
  await rollout.filter({ hasText: "runs version 3" }).waitFor();

  // One that waits, and is stopped; then one that the host refuses.
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await dialog(page).getByLabel("Each holds for, minutes").fill("600");
  await dialog(page).getByRole("button", { name: "Change", exact: true }).click();
  await page.getByText("600 min", { exact: true }).waitFor();
  await page.getByRole("link", { name: "Edit", exact: true }).click();
  await text.fill((await text.inputValue()).replace("20", "30"));
  await page.getByLabel("Reason", { exact: true }).fill("slowly");
  await page.getByRole("button", { name: "Put version 4" }).click();
  await page.getByText("This stage holds for 600 min").waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  await dialog(page).getByLabel("Reason", { exact: true }).fill("wait");
  await dialog(page).getByRole("button", { name: "Pause" }).click();
  await page.getByText("Paused", { exact: true }).first().waitFor();
  await shot(page, "paused");
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await dialog(page).getByLabel("Reason", { exact: true }).fill("enough");
  await dialog(page).getByRole("button", { name: "Stop", exact: true }).click();
  await rollout.filter({ hasText: "runs version 5" }).waitFor();
  await page.getByRole("link").filter({ hasText: "stopped by ann: enough" }).first().waitFor();

  await page.goto(`${BASE}/policies`);
  await page.getByRole("row").filter({ hasText: NAME }).waitFor();
  await unharmed(page, "the list");
  await shots(page, "list");
  await page.goto(`${BASE}/hosts`);
  await page.getByRole("row").filter({ hasText: host }).first().click();
  await page.getByRole("link", { name: NAME }).waitFor();
  await page.goto(`${BASE}/scans`);
  await page.getByRole("link", { name: "Schedules in policies" }).click();
  await page.getByRole("heading", { name: "Policies" }).waitFor();
  await page.goto(`${BASE}/models`);
  await page.getByRole("row").filter({ hasText: "Clear Command History" }).click();
  await page.getByRole("link").filter({ hasText: NAME }).click();
  check((await page.getByLabel("Find a model").inputValue()) === "Clear Command History", "the model leads to its switch");

  await page.evaluate(() => localStorage.setItem("holdfast.language", "ja"));
  await page.goto(`${BASE}/policies`);
  await page.getByRole("heading", { name: "ポリシー" }).waitFor();
  await shot(page, "ja");
  await page.evaluate(() => localStorage.setItem("holdfast.language", "en"));
  await page.goto(BASE);
  await signOut(page, user);
  const viewer = JSON.parse(await ask("viewer"));
  await signIn(page, viewer.name, viewer.password);
  await page.getByText("Needs a person now").waitFor();
  await page.goto(`${BASE}/policies`);
  await page.getByRole("row").filter({ hasText: NAME }).click();
  await rollout.filter({ hasText: "runs version 5" }).waitFor();
  for (const name of ["Choose groups", "Change", "Stop", "Pause", "Go back to version 1"])
    check((await page.getByRole("button", { name, exact: true }).count()) === 0, `no ${name} for a viewer`);
  check((await page.getByRole("link", { name: "Edit", exact: true }).count()) === 0, "no editor for a viewer");
  await page.goto(`${page.url()}/edit`);
  await page.getByText("This is for admins").waitFor();
});
