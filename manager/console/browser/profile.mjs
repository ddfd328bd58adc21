// From an alert to the tree of its process, by mouse and by keys; what a process is called is text.
import { ask, BASE, check, run, shot, shots, signIn } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: password } = process.env;

await run(async (page) => {
  await signIn(page, user, password);
  await page.getByText("Needs a person now").waitFor();
  // A shell under another name, with markup and turned text in its arguments, and a child.
  const pid = await ask("attack");
  await page.goto(`${BASE}/alerts?kind=model`);
  await page.getByRole("row").filter({ hasText: "Disable or Modify Tools" }).first().click();
  await page.getByRole("link", { name: "Execution profile" }).click();

  const own = page.getByRole("treeitem").filter({ hasText: pid });
  await own.waitFor();
  const child = page.getByRole("treeitem").filter({ has: page.locator(".process-name", { hasText: "sleep" }) }).first();
  await child.waitFor();
  check((await own.getAttribute("aria-selected")) === "true", "the process itself is chosen");
  check(Number(await child.getAttribute("aria-level")) > Number(await own.getAttribute("aria-level")), "a child is below");
  await page.getByText("\\xe2\\x80\\xae").first().waitFor();
  check(!(await page.locator("main").textContent()).includes("\u202e"), "nothing turns text round");
  check((await page.locator("img").count()) === 0, "arguments are no markup");
  await page.getByText("detection", { exact: true }).first().waitFor();
  await shots(page, "profile");

  // By keys: fold, unfold, the menu of a process.
  await own.focus();
  await page.keyboard.press("ArrowLeft");
  await child.waitFor({ state: "detached" });
  check((await own.getAttribute("aria-expanded")) === "false", "folded");
  await page.keyboard.press("ArrowRight");
  await child.waitFor();
  await page.keyboard.press("ArrowRight");
  check((await child.getAttribute("aria-selected")) === "true", "the child is chosen");
  await page.keyboard.press("Enter");
  await page.getByRole("menuitem", { name: "Kill process" }).waitFor();
  await page.getByRole("menuitem", { name: "Collect file" }).waitFor();
  await shot(page, "menu");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Home");

  // Before it began, the child is not there.
  const slider = page.getByRole("slider");
  await slider.focus();
  await page.keyboard.press("Home");
  await child.waitFor({ state: "detached" });
  await shot(page, "moment");
  await page.keyboard.press("End");
  await child.waitFor();

  // Ended from here, and seen to end.
  await own.click();
  await page.getByRole("button", { name: "Kill process" }).click();
  await page.getByRole("dialog").getByLabel("Reason").fill("a test");
  await page.getByRole("button", { name: "Kill it" }).click();
  await page.getByRole("link", { name: "Look" }).click();
  await page.getByText("Verified").first().waitFor();

  // Another process of the tree has a page of its own; one that nobody named says so.
  await page.goBack();
  await child.click();
  await page.getByRole("button", { name: "Profile of this process" }).click();
  await page.getByRole("heading", { name: "Execution profile sleep" }).waitFor();
  const place = new URL(page.url());
  page.expected = [/status of 404/];
  await page.goto(`${BASE}${place.pathname.replace(/[^/]*$/, "1-1")}`);
  await page.getByText("No event names this process").waitFor();
  page.expected = [];
  await shot(page, "none");

  // Japanese.
  await page.evaluate(() => localStorage.setItem("holdfast.language", "ja"));
  await page.goto(place.href);
  await page.getByRole("tree", { name: "プロセスツリー" }).waitFor();
  await shot(page, "ja");
  await page.evaluate(() => localStorage.setItem("holdfast.language", "en"));

  // Who may only look sees the tree, and nothing to do.
  const viewer = JSON.parse(await ask("viewer"));
  await page.context().clearCookies();
  await signIn(page, viewer.name, viewer.password);
  await page.getByText("Needs a person now").waitFor();
  await page.goto(place.href);
  await page.getByRole("treeitem").first().waitFor();
  for (const button of ["Kill process", "Collect file", "Deny hash"])
    check((await page.getByRole("button", { name: button }).count()) === 0, `no ${button} for a viewer`);
  await shot(page, "viewer");
});
