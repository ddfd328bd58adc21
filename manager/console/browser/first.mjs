// From the first password to an alert that arrives by itself, and what each role sees.
import { ask, BASE, check, run, shot, shots, signIn } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: first, CONSOLE_HOST: host } = process.env;
const password = "another password of tests";

await run(async (page) => {
  // The policy is what the manager says it is.
  const response = await page.goto(BASE);
  const policy = response.headers()["content-security-policy"];
  check(policy.includes("script-src 'self'") && !policy.includes("unsafe"), policy);
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  // Somebody has signed in before: nothing is said of the first password.
  check((await page.getByText("The first start of the manager").count()) === 0, "no hint any more");
  await shots(page, "sign-in");

  await signIn(page, user, "not the password");
  await page.getByText("Name or password is wrong.").waitFor();
  await page.getByLabel("Password", { exact: true }).fill(first);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText("Choose a password").waitFor();
  await shots(page, "first-password");
  await page.getByLabel("Password now").fill(first);
  await page.getByLabel("New password", { exact: true }).fill(password);
  await page.getByLabel("New password again").fill(password);
  await page.getByRole("button", { name: "Change and go on" }).click();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await page.getByText(host).first().waitFor();

  // By keys to the alerts; one arrives while they are looked at, and the page is not loaded again.
  await page.keyboard.press("g");
  await page.keyboard.press("a");
  await page.getByRole("heading", { name: "Alerts" }).waitFor();
  await page.evaluate(() => (window.sameDocument = true));
  const name = await ask("eicar");
  const row = page.getByRole("row").filter({ hasText: name }).first();
  await row.waitFor();
  check(await page.evaluate(() => window.sameDocument), "the alert came without a reload");
  check(!(await row.textContent()).includes("\u202e"), "nothing turns text round");
  check((await page.locator("img").count()) === 0, "a file's name is no markup");
  await shots(page, "alerts");

  await row.click();
  await page.getByText("What happened").waitFor();
  await page.getByText("The file is in quarantine.").waitFor();
  await shots(page, "alert");
  await page.getByRole("button", { name: "Take" }).click();
  await page.getByText("In progress").first().waitFor();
  await page.getByPlaceholder("Write a note").fill("Looked at <b>it</b>.\u202e");
  await page.getByRole("button", { name: "Add note" }).click();
  await page.getByText("Looked at <b>it</b>.\\u{202e}").first().waitFor();

  // What is dangerous says what it does, and wants a reason.
  await page.getByRole("button", { name: "Isolate" }).click();
  await page.getByText("All traffic of 1 host stops at once").waitFor();
  check(await page.getByRole("button", { name: "Isolate 1 host" }).isDisabled(), "no order without a reason");
  await shots(page, "isolate");
  await page.keyboard.press("Escape");

  // A task to its proof.
  await page.getByRole("link", { name: "Hosts" }).first().click();
  await page.getByRole("row").filter({ hasText: host }).first().waitFor();
  await shots(page, "hosts");
  await page.getByRole("row").filter({ hasText: host }).first().click();
  await page.getByText("What works, and what shows it").waitFor();
  await shots(page, "host");
  await page.getByRole("button", { name: "List processes" }).click();
  await page.getByRole("dialog").getByLabel("Reason").fill("a test");
  await page.getByRole("button", { name: "List on 1 host" }).click();
  await page.getByRole("link", { name: "Look" }).click();
  await page.getByText("Verified").first().waitFor();
  await shots(page, "task");
  await page.getByRole("link", { name: "Response tasks" }).first().click();
  await page.getByRole("row").filter({ hasText: "List processes" }).first().waitFor();
  await shots(page, "tasks");

  // Another host comes by one command.
  await page.getByRole("link", { name: "Hosts" }).first().click();
  await page.getByRole("button", { name: "Add a host" }).click();
  await page.getByRole("button", { name: "Make the command" }).click();
  const command = await page.locator("[data-command]").textContent();
  check(/^sudo holdfast enroll --manager https:\S+ --token hfe_\w+ --ca-fingerprint [0-9a-f]{64}$/.test(command), command);
  await shot(page, "add-host");
  await page.getByRole("button", { name: "Done" }).click();

  await page.goto(BASE);
  await page.getByText("Needs a person now").waitFor();
  await page.getByText("Latest response tasks").waitFor();
  await page.getByRole("link", { name: /List processes/ }).first().waitFor();
  await shots(page, "overview");

  // Every filter stands in the address, and leads back.
  await page.goto(`${BASE}/alerts?state=any&level=low`);
  await page.getByText("No alert matches").waitFor();
  await shot(page, "no-match");

  // Another language, kept.
  await page.getByRole("button", { name: user }).click();
  await page.getByRole("menuitem", { name: "日本語" }).click();
  await page.getByRole("heading", { name: "アラート" }).waitFor();
  await page.goto(BASE);
  await page.getByText("対応が必要").waitFor();
  await shot(page, "overview-ja");
  await page.evaluate(() => localStorage.setItem("holdfast.language", "en"));

  // The manager goes and comes back.
  await page.goto(`${BASE}/alerts`);
  await page.getByRole("row").filter({ hasText: name }).first().waitFor();
  page.expected = [/ERR_/, /Failed to load resource/, /EventSource/];
  await ask("stop");
  await page.getByText("Connection lost").waitFor();
  await shot(page, "lost");
  await ask("start");
  await page.getByText("Connection lost").waitFor({ state: "hidden" });
  await page.getByRole("row").filter({ hasText: name }).first().waitFor();
  page.expected = [];

  // Who may only look sees nothing to do.
  await page.getByRole("button", { name: user }).click();
  await page.getByRole("menuitem", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Sign in" }).waitFor();
  const viewer = JSON.parse(await ask("viewer"));
  await signIn(page, viewer.name, viewer.password);
  await page.getByText("Choose a password").waitFor();
  await page.getByLabel("Password now").fill(viewer.password);
  await page.getByLabel("New password", { exact: true }).fill(password);
  await page.getByLabel("New password again").fill(password);
  await page.getByRole("button", { name: "Change and go on" }).click();
  await page.getByText("Needs a person now").waitFor();
  await page.goto(`${BASE}/alerts`);
  await page.getByRole("row").filter({ hasText: name }).first().click();
  await page.getByText("What happened").waitFor();
  for (const button of ["Take", "Resolve", "Isolate", "Collect file"])
    check((await page.getByRole("button", { name: button }).count()) === 0, `no ${button} for a viewer`);
  check((await page.getByPlaceholder("Write a note").count()) === 0, "no note by a viewer");
  await shot(page, "alert-viewer");
});
