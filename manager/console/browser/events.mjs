// A detection from the list to its alert and its quarantined file; what is shown and exported is text.
import { readFileSync } from "node:fs";
import { ask, BASE, check, enter, run, shot, shots, unharmed } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: first } = process.env;
const password = "another password of tests";

await run(async (page) => {
  await enter(page, user, first, password);
  await page.goto(`${BASE}/events?period=1-2`);
  await page.getByText("Nothing malicious in this period").waitFor();
  await shots(page, "events-empty");

  // By keys, and what comes appears by itself.
  await page.keyboard.press("g");
  await page.keyboard.press("e");
  await page.getByRole("heading", { name: "Anti-malware events" }).waitFor();
  await page.evaluate(() => (window.sameDocument = true));
  const name = await ask("eicar");
  const row = page.getByRole("row").filter({ hasText: name }).first();
  await row.waitFor();
  check(await page.evaluate(() => window.sameDocument), "the event came without a reload");
  await unharmed(page, "the list");
  await shots(page, "events");

  // Columns that the reader chooses stay chosen.
  await page.getByRole("button", { name: "Columns" }).click();
  await page.getByRole("menuitemcheckbox", { name: "MD5" }).click();
  await page.keyboard.press("Escape");
  await page.getByRole("columnheader", { name: "MD5" }).waitFor();
  await page.reload();
  await page.getByRole("columnheader", { name: "MD5" }).waitFor();
  await row.waitFor();

  // The calendar.
  await page.getByRole("button", { name: "Last 24 hours" }).click();
  await page.getByRole("menuitem", { name: "Choose days…" }).click();
  await page.getByRole("button", { name: "Show" }).waitFor();
  await shot(page, "events-calendar");
  await page.keyboard.press("Escape");

  for (const [item, file] of [["As CSV", "events.csv"], ["As JSON", "events.json"]]) {
    await page.getByRole("button", { name: "Export" }).click();
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("menuitem", { name: item }).click()]);
    check(download.suggestedFilename() === file, download.suggestedFilename());
    const text = readFileSync(await download.path(), "utf8");
    check(text.includes("44d88612fea8a8f36de82e1278abb02f"), `${file} holds the hashes`);
    if (file.endsWith("json")) check(JSON.parse(text)[0].event.kind === "malware", "whole events");
  }

  // One event with all that was told, by Enter.
  await page.locator("[data-table]").focus();
  await page.keyboard.press("Enter");
  await page.getByText("All fields").waitFor();
  await page.getByText("The file is in quarantine.").waitFor();
  await page.getByRole("link", { name: /Eicar-Test-File/ }).waitFor();
  await unharmed(page, "the event");
  await shots(page, "event");

  // Each value leads to a search.
  await page.getByRole("button", { name: "What to do with sha256", exact: true }).click();
  await page.getByRole("menuitem", { name: "Filter for this" }).click();
  await page.getByRole("heading", { name: "Search" }).waitFor();
  await page.getByText(/^\d+ events?$/).waitFor();
  await page.goBack();

  await page.getByRole("link", { name: "See the file" }).click();
  await page.getByText("Nothing was done with it").waitFor();
  await page.goBack();
  await page.getByRole("link", { name: /Eicar-Test-File/ }).click();
  await page.getByText("What happened").waitFor();
  check(new URL(page.url()).pathname.startsWith("/alerts/"), page.url());
});
