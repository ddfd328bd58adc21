// Users, tokens, channels and the audit log, as an admin has them; names that others chose are text.
import { ask, BASE, check, run, shot, shots, signIn } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: password, CONSOLE_HOOK: hook } = process.env;
/** What is open over the page. */
const dialog = (page) => page.getByRole("dialog");
const HOSTILE = "bob<img src=x onerror=alert(1)>";
const NAME = "bob";

await run(async (page) => {
  await signIn(page, user, password);
  await page.getByText("Needs a person now").waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("d");
  await page.getByRole("button", { name: "Add a user" }).click();
  await dialog(page).getByLabel("Name", { exact: true }).fill(HOSTILE);
  await dialog(page).getByLabel("One-time password").fill("a one-time password");
  await shot(page, "user-new");
  // What the manager refuses is said in its own words.
  page.expected = [/status of 400/];
  await page.getByRole("button", { name: "Make the user" }).click();
  await page.getByText("1 to 64 letters, digits").waitFor();
  page.expected = [];
  await dialog(page).getByLabel("Name", { exact: true }).fill(NAME);
  await page.getByRole("button", { name: "Make the user" }).click();
  const row = page.getByRole("row").filter({ hasText: NAME });
  await row.waitFor();
  await shots(page, "users");
  await row.click();
  await dialog(page).getByRole("textbox", { name: "Role" }).click();
  await page.getByRole("option", { name: "Operator" }).click();
  await dialog(page).getByLabel("Disabled").check();
  await shot(page, "user");
  await page.getByRole("button", { name: "Save" }).click();
  await row.getByText("Operator").waitFor();
  await row.getByText("Disabled").waitFor();

  await page.getByRole("row").filter({ hasText: user }).first().click();
  await page.getByText("This is you").waitFor();
  await page.keyboard.press("Escape");

  await page.getByRole("link", { name: "Enrollment tokens" }).click();
  await page.getByRole("button", { name: "Make a token" }).click();
  await dialog(page).getByLabel("Group").fill("web<b>");
  await page.getByRole("button", { name: "Make the command" }).click();
  await page.locator("[data-command]").waitFor();
  await page.getByRole("button", { name: "Done" }).click();
  const token = page.getByRole("row").filter({ hasText: "web<b>" });
  await token.getByText("Valid").waitFor();
  await shots(page, "tokens");
  await token.click();
  await page.getByRole("button", { name: "Take it back" }).click();
  await token.getByText("Taken back").waitFor();

  await page.getByRole("link", { name: "Notifications" }).click();
  await page.getByText("No notification channels").waitFor();
  await shot(page, "channels-none");
  await page.getByRole("button", { name: "Add a channel" }).click();
  await dialog(page).getByRole("textbox", { name: "Kind" }).click();
  await page.getByRole("option", { name: "Syslog" }).click();
  await dialog(page).getByLabel("Name", { exact: true }).fill("log <i>host</i>");
  await dialog(page).getByLabel("Server", { exact: true }).fill("127.0.0.1");
  await dialog(page).getByLabel("Port", { exact: true }).fill(hook);
  await dialog(page).getByRole("textbox", { name: "Transport" }).click();
  await page.getByRole("option", { name: "tcp" }).click();
  await shot(page, "channel-new");
  await page.getByRole("button", { name: "Make it and test" }).click();
  await page.getByRole("button", { name: "Send a test message" }).click();
  await page.getByText(/Taken in \d+ ms|Not taken/).waitFor();
  await shots(page, "channel");
  await page.getByRole("button", { name: "Remove the channel" }).click();
  await page.getByText("is not told. Sure?").or(page.getByText("are not told. Sure?")).waitFor();
  await page.getByRole("button", { name: "Remove the channel" }).click();
  await page.getByText("No notification channels").waitFor();

  await page.getByRole("link", { name: "Audit log" }).click();
  await page.getByRole("row").filter({ hasText: "user.create" }).first().waitFor();
  check((await page.locator("img, i").count()) === 0, "the log holds no markup");
  await shots(page, "audit");
  await page.keyboard.press("/");
  await page.keyboard.type("USER.CREATE");
  await page.getByRole("row").filter({ hasText: "session" }).first().waitFor({ state: "detached" });
  await page.getByRole("row").filter({ hasText: NAME }).first().click();
  await page.getByText("of the audit log").waitFor();
  await shot(page, "audit-row");
  await page.keyboard.press("Escape");

  await page.evaluate(() => localStorage.setItem("holdfast.language", "ja"));
  await page.goto(`${BASE}/admin/notifications`);
  await page.getByText("通知先はありません").waitFor();
  await shot(page, "channels-ja");
  await page.evaluate(() => localStorage.setItem("holdfast.language", "en"));

  // Nobody else finds the way here, and whoever has the address is told.
  const viewer = JSON.parse(await ask("viewer"));
  await page.context().clearCookies();
  await signIn(page, viewer.name, viewer.password);
  await page.getByText("Needs a person now").waitFor();
  check((await page.getByRole("link", { name: "Administration" }).count()) === 0, "no entry for a viewer");
  await page.goto(`${BASE}/admin`);
  await page.getByText("This is for admins").waitFor();
});
