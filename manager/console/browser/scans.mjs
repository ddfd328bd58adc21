// A scan from its order to its proof: under way, in the history, with what it found and left out; and one
// that is cancelled.
import { ask, BASE, check, enter, run, shot, shots, signOut, unharmed } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: first, CONSOLE_HOST: host } = process.env;
const password = "another password of tests";

await run(async (page) => {
  await enter(page, user, first, password);
  await page.goto(`${BASE}/scans?state=skipped`);
  await page.getByText("No scan matches").waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("c");
  await page.getByRole("heading", { name: "Scans", exact: true }).waitFor();

  const start = async (paths, share) => {
    await page.getByRole("button", { name: "Start a scan" }).click();
    await page.getByRole("textbox", { name: "Hosts" }).click();
    await page.getByRole("option", { name: host }).click();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").getByText("Paths", { exact: true }).click();
    await page.getByRole("textbox", { name: "Paths", exact: true }).fill("relative");
    await page.getByText("relative does not begin with /").waitFor();
    check(await page.getByRole("button", { name: "Scan 1 host" }).isDisabled(), "no scan of what is no path");
    await page.getByRole("textbox", { name: "Paths", exact: true }).fill(paths);
    await page.getByLabel("Share of a core, percent").fill(String(share));
    await page.getByRole("dialog").getByLabel("Reason", { exact: true }).fill("a test");
    await shot(page, "scan-start");
    await page.getByRole("button", { name: "Scan 1 host" }).click();
    await page.getByRole("dialog").waitFor({ state: "hidden" });
  };

  // A slow one is seen under way, and cancelled.
  await start(await ask("slow"), 1);
  const running = page.getByRole("region", { name: "Under way" });
  await running.getByText(/running/).first().waitFor();
  await shots(page, "scans-running");
  await running.getByRole("button", { name: "Cancel", exact: true }).click();
  await page.getByRole("dialog").getByLabel("Reason", { exact: true }).fill("a test");
  await page.getByRole("dialog").getByRole("button", { name: "Cancel", exact: true }).last().click();
  await running.waitFor({ state: "hidden" });
  const row = (state) => page.getByRole("row").filter({ hasText: state }).filter({ hasText: host }).first();
  await row("Cancelled").waitFor();

  // Another finds what lay there.
  await start(await ask("plant"), 100);
  await row("Done").waitFor();
  await shots(page, "scans");
  await row("Done").click();
  await page.getByText("What was found").waitFor();
  await page.getByText("Eicar-Test-File").first().waitFor();
  await page.getByText("Symbolic links: never followed").waitFor();
  await unharmed(page, "the scan");
  await shots(page, "scan");
  await page.getByRole("link", { name: "See the file" }).first().click();
  await page.getByText("Nothing was done with it").waitFor();

  await signOut(page, user);
  const viewer = JSON.parse(await ask("viewer"));
  await enter(page, viewer.name, viewer.password, password);
  await page.goto(`${BASE}/scans`);
  await row("Done").waitFor();
  check((await page.getByRole("button", { name: "Start a scan" }).count()) === 0, "a viewer starts no scan");
});
