// A file lay there before anybody watched: a scheduled scan finds it, a mail tells of it with every
// field, and whoever reads it cleans up.
import { ask, run, shot, shots, signIn } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: password } = process.env;
const { CONSOLE_MAIL_PORT: port, CONSOLE_MAIL_PASSWORD: secret, CONSOLE_MAIL_AUTHORITY: authority } = process.env;
/** A minute to come, and what it is late by on a busy machine. */
const NEXT_MINUTE = 150_000;
const dialog = (page) => page.getByRole("dialog");

await run(async (page) => {
  await signIn(page, user, password);
  await page.getByText("Needs a person now").waitFor();

  // Where mails go; the server takes one now.
  await page.keyboard.press("g");
  await page.keyboard.press("d");
  await page.getByRole("link", { name: "Notifications", exact: true }).click();
  await page.getByRole("button", { name: "Add a channel", exact: true }).click();
  for (const [label, value] of [
    ["Name", "mail"], ["Server", "127.0.0.1"], ["Port", port], ["User", "holdfast"], ["From", "Holdfast <holdfast@example.org>"],
    ["To", "ops@example.org"], ["Password", secret], ["Gather for, seconds", "0"], ["Authority (PEM)", authority],
  ])
    await dialog(page).getByLabel(label, { exact: true }).fill(value);
  await page.getByRole("button", { name: "Make it and test", exact: true }).click();
  await page.getByRole("button", { name: "Send a test message", exact: true }).click();
  await page.getByText(/Taken in \d+ ms/).waitFor();
  await shot(page, "channel");
  await page.keyboard.press("Escape");
  await dialog(page).waitFor({ state: "hidden" });

  const path = await ask("plant");
  await page.keyboard.press("g");
  await page.keyboard.press("c");
  await page.getByRole("heading", { name: "Scans", exact: true }).waitFor();
  const found = page.getByRole("row").filter({ hasText: "each minute" }).filter({ has: page.getByRole("gridcell", { name: "1", exact: true }) });
  await found.first().waitFor({ timeout: NEXT_MINUTE });
  await shots(page, "scans");
  await ask("mail");

  // What the mail's reader finds: the alert, how it was found, the file.
  await page.keyboard.press("g");
  await page.keyboard.press("a");
  await page.getByRole("row").filter({ hasText: path }).first().click();
  await page.getByText("What happened").waitFor();
  await page.getByText("Scheduled", { exact: true }).first().waitFor();
  await shots(page, "alert");
  const alert = page.url();
  await ask("gone");
  await page.getByRole("link", { name: "See the file", exact: true }).click();
  await page.getByText("Nothing was done with it").waitFor();

  // Cleaned up: the file is destroyed, the alert is resolved.
  await page.getByRole("button", { name: "Delete", exact: true }).click();
  await dialog(page).getByLabel("Reason", { exact: true }).fill("cleaned up");
  await dialog(page).getByRole("button", { name: "Delete 1 file", exact: true }).click();
  await page.getByText("Deleted", { exact: true }).first().waitFor();
  await page.goto(alert);
  await page.getByRole("button", { name: "Resolve", exact: true }).click();
  await page.getByRole("menuitem", { name: "True positive", exact: true }).click();
  await page.locator(".state-resolved").first().waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("a");
  await page.getByRole("heading", { name: "Alerts", exact: true }).waitFor();
  await page.getByRole("row").filter({ hasText: path }).waitFor({ state: "detached" });
  await shot(page, "end");
});
