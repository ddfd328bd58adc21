// The download: a file that curl fetched is in quarantine before anybody opens it; its alert, its event,
// restored and detected again, delivered as a zip, destroyed. Then another one that is allowed, and
// many at once. Who may only look does none of it.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { ask, BASE, check, enter, run, shot, shots, signOut, unharmed } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: first } = process.env;
const password = "another password of tests";

await run(async (page) => {
  await enter(page, user, first, password);
  await page.getByText("Needs a person now").waitFor();
  const fetched = await ask("download");
  await page.getByRole("link").filter({ hasText: fetched }).first().click();
  await page.getByText("What happened").waitFor();
  await page.locator(".command").filter({ hasText: "curl" }).first().waitFor();
  await page.getByText("The file is in quarantine.").waitFor();
  const alert = page.url();
  await shot(page, "story-alert");
  await page.keyboard.press("g");
  await page.keyboard.press("e");
  await page.getByRole("row").filter({ hasText: fetched }).first().click();
  await page.getByText("All fields").waitFor();
  await shot(page, "story-event");
  await page.getByRole("link", { name: "See the file", exact: true }).click();
  await page.getByText("Nothing was done with it").waitFor();
  await page.getByText("How it was found").waitFor();
  const before = page.url();

  const order = async (button, send, choose = async () => undefined) => {
    await page.getByRole("button", { name: button, exact: true }).click();
    await choose(page.getByRole("dialog"));
    await page.getByRole("dialog").getByLabel("Reason", { exact: true }).fill("a test");
    await shot(page, `order-${button.toLowerCase().replaceAll(" ", "-")}`);
    await page.getByRole("button", { name: send }).click();
    await page.getByRole("dialog").waitFor({ state: "hidden" });
  };

  // Restored, it is detected again by the next who opens it: another file in quarantine.
  await order("Restore", "Restore 1 file");
  await page.getByText("Restored", { exact: true }).first().waitFor();
  await page.getByText("Verified").first().waitFor();
  check(!(await ask(`open ${fetched}`)).startsWith("read "), "it is malicious still");
  await page.goto(`${BASE}/quarantine?state=deleted`);
  await page.getByText("No quarantined file matches").waitFor();
  await page.getByRole("link", { name: "Show without filters" }).click();
  await page.getByRole("heading", { name: "Quarantine" }).waitFor();
  await page.getByRole("row").filter({ hasText: fetched }).first().click();
  await page.getByText("Nothing was done with it").waitFor();
  check(page.url() !== before, "another item");
  const item = page.url();

  // The zip, with the password that it opens with.
  await order("Download", "Fetch 1 file");
  const save = page.getByRole("link", { name: /Save the zip/ });
  await save.waitFor();
  const [download] = await Promise.all([page.waitForEvent("download"), save.click()]);
  const shown = await page.locator("[data-password]").textContent();
  check(shown === "infected", "the password is shown");
  const zip = await download.path();
  check(readFileSync(zip).subarray(0, 2).toString() === "PK", "a zip");
  const content = execFileSync("bsdtar", ["--passphrase", shown, "-xOf", zip]);
  check(createHash("md5").update(content).digest("hex") === "44d88612fea8a8f36de82e1278abb02f", "the zip holds the file");
  await unharmed(page, "the file");
  await shots(page, "item");
  await order("Delete", "Delete 1 file");
  await page.getByText("Deleted", { exact: true }).first().waitFor();
  check(await page.getByRole("button", { name: "Delete", exact: true }).isDisabled(), "what is gone cannot be deleted");
  await page.goto(alert);
  await page.getByText("seen 2 times").waitFor();

  // Restored and allowed for a day, another one stays.
  await page.goto(`${BASE}/quarantine`);
  const name = await ask("eicar");
  const rows = page.getByRole("row").filter({ hasText: name });
  await rows.first().waitFor();
  await unharmed(page, "the list");
  await shots(page, "quarantine");
  await rows.first().click();
  await page.getByText("Nothing was done with it").waitFor();
  await order("Restore and allow", "Restore and allow 1 file", async (dialog) => {
    await dialog.getByRole("textbox", { name: "Allow until" }).click();
    await page.getByRole("option", { name: "24 hours from then on" }).click();
  });
  await page.getByText("Restored, allowed", { exact: true }).first().waitFor();
  await page.getByText("its content is allowed for 86400 s").waitFor();
  check((await ask(`open ${name}`)).startsWith("read "), "it may be read");
  await shots(page, "item-allowed");

  // Many at once.
  await ask("others");
  await page.goto(`${BASE}/quarantine`);
  const other = page.getByRole("row").filter({ hasText: "other" });
  await other.nth(1).waitFor();
  await page.getByRole("columnheader").getByRole("checkbox").check();
  await shot(page, "quarantine-bulk");
  await page.getByRole("region", { name: /chosen/ }).getByRole("button", { name: "Delete" }).click();
  await page.getByText("Nothing brings them back.").waitFor();
  await page.getByRole("dialog").getByLabel("Reason", { exact: true }).fill("a test");
  await page.getByRole("button", { name: /Delete \d+ files/ }).click();
  await page.getByText("Quarantine is empty").waitFor();
  await shot(page, "quarantine-empty");
  await page.getByRole("link", { name: "Show those that left it" }).click();
  await page.getByText("Deleted").first().waitFor();

  await signOut(page, user);
  const viewer = JSON.parse(await ask("viewer"));
  await enter(page, viewer.name, viewer.password, password);
  await page.goto(item);
  await page.getByText("The file", { exact: true }).waitFor();
  for (const button of ["Restore", "Restore and allow", "Download", "Delete"])
    check((await page.getByRole("button", { name: button, exact: true }).count()) === 0, `no ${button} for a viewer`);
  check((await page.getByRole("link", { name: /Save the zip/ }).count()) === 0, "no zip for a viewer");
  await page.goto(`${BASE}/quarantine?state=any`);
  await rows.first().waitFor();
  check((await page.getByRole("checkbox").count()) === 0, "nothing to choose for a viewer");
});
