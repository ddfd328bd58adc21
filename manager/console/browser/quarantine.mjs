// A quarantined file: restored and detected again, delivered as a zip, restored for good, and others
// deleted; each with what its host observed. Who may only look does none of it.
import { readFileSync } from "node:fs";
import { ask, BASE, check, enter, run, shot, shots, signOut, unharmed } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: first } = process.env;
const password = "another password of tests";

await run(async (page) => {
  await enter(page, user, first, password);
  await page.goto(`${BASE}/quarantine?state=deleted`);
  await page.getByText("No quarantined file matches").waitFor();
  await page.getByRole("link", { name: "Show without filters" }).click();
  await page.getByRole("heading", { name: "Quarantine" }).waitFor();
  const name = await ask("eicar");
  const rows = page.getByRole("row").filter({ hasText: name });
  await rows.first().waitFor();
  await unharmed(page, "the list");
  await shots(page, "quarantine");
  await rows.first().click();
  await page.getByText("Nothing was done with it").waitFor();
  await page.getByText("How it was found").waitFor();
  const item = page.url();

  const order = async (button, send) => {
    await page.getByRole("button", { name: button, exact: true }).click();
    await page.getByRole("dialog").getByLabel("Reason", { exact: true }).fill("a test");
    await shot(page, `order-${button.toLowerCase().replaceAll(" ", "-")}`);
    await page.getByRole("button", { name: send }).click();
    await page.getByRole("dialog").waitFor({ state: "hidden" });
  };

  // The zip, with the password that it opens with.
  await order("Download", "Fetch 1 file");
  const save = page.getByRole("link", { name: /Save the zip/ });
  await save.waitFor();
  check((await page.locator("[data-password]").textContent()) === "infected", "the password is shown");
  const [download] = await Promise.all([page.waitForEvent("download"), save.click()]);
  check(readFileSync(await download.path()).subarray(0, 2).toString() === "PK", "a zip");
  await unharmed(page, "the file");
  await shots(page, "item");

  // Restored, it is detected again by the next who opens it: another file in quarantine.
  await order("Restore", "Restore 1 file");
  await page.getByText("Restored", { exact: true }).first().waitFor();
  await page.getByText("Verified").first().waitFor();
  check(!(await ask("open")).startsWith("read "), "it is malicious still");
  await page.goto(`${BASE}/quarantine`);
  await rows.first().waitFor();
  check((await rows.count()) >= 1, "it is here again");
  await rows.first().click();
  await page.getByText("Nothing was done with it").waitFor();
  check(page.url() !== item, "another item");

  // Restored and allowed, it stays.
  await order("Restore and allow", "Restore and allow 1 file");
  await page.getByText("Restored, allowed", { exact: true }).first().waitFor();
  check((await ask("open")).startsWith("read "), "it may be read");
  await shots(page, "item-allowed");
  check(await page.getByRole("button", { name: "Delete", exact: true }).isDisabled(), "what is gone cannot be deleted");

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
