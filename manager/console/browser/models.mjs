// The shipped models, what of ATT&CK they cover, and one proven on a host from here.
import { ask, BASE, check, run, shot, shots, signIn } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: password, CONSOLE_HOST: host } = process.env;

await run(async (page) => {
  await signIn(page, user, password);
  await page.getByText("Needs a person now").waitFor();
  await page.keyboard.press("g");
  await page.keyboard.press("m");
  await page.getByRole("heading", { name: "Detection models" }).waitFor();
  const row = page.getByRole("row").filter({ hasText: "Clear Command History" });
  await row.waitFor();
  await shots(page, "list");
  await page.keyboard.press("/");
  await page.keyboard.type("no such model");
  await page.getByText("No model matches").waitFor();
  await page.getByRole("link", { name: "Show without filters" }).click();

  await row.click();
  await page.getByText("What it looks for").waitFor();
  await page.getByText("title: 'Clear Command History'").waitFor();
  await page.getByText("on 1 host", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Simulate on a host" }).click();
  check(await page.getByRole("button", { name: "Simulate", exact: true }).isDisabled(), "no order without host and reason");
  await page.getByRole("textbox", { name: "Host" }).click();
  await page.getByRole("option", { name: host }).click();
  await page.getByRole("dialog").getByLabel("Reason").fill("a test");
  await shot(page, "simulate");
  await page.getByRole("button", { name: "Simulate", exact: true }).click();
  await page.getByText("Clear Command History has fired").waitFor();
  await page.getByRole("link", { name: "Its alert" }).waitFor();
  await shots(page, "model");
  await page.getByRole("link", { name: "Its alert" }).click();
  await page.getByText("What happened").waitFor();

  await page.goto(`${BASE}/models?view=matrix`);
  const tactic = page.getByRole("region", { name: "Defense Evasion" });
  await tactic.getByText("T1070.003").waitFor();
  await tactic.getByRole("link", { name: /Clear Command History/ }).waitFor();
  await page.getByText("No shipped model: Reconnaissance").waitFor();
  await shots(page, "matrix");

  await page.evaluate(() => localStorage.setItem("holdfast.language", "ja"));
  await page.reload();
  await page.getByRole("region", { name: "防御回避" }).waitFor();
  await shot(page, "matrix-ja");
  await page.evaluate(() => localStorage.setItem("holdfast.language", "en"));

  const viewer = JSON.parse(await ask("viewer"));
  await page.context().clearCookies();
  await signIn(page, viewer.name, viewer.password);
  await page.getByText("Needs a person now").waitFor();
  await page.goto(`${BASE}/models`);
  await row.click();
  await page.getByText("What it looks for").waitFor();
  check((await page.getByRole("button", { name: "Simulate on a host" }).count()) === 0, "no simulation for a viewer");
});
