// Somebody listens on the network: seen while the overview is open, followed to its process, looked for
// on all hosts, its program fetched, the host looked at from inside, cut off and let go again. A chapter
// each, in this order.
import { ask, BASE, check, run, shot, shots, signIn } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: password, CONSOLE_HOST: host } = process.env;
const COMMAND = "tcpdump -c 5 -nnni";
let alert = "";
let pid = "";

const dialog = (page) => page.getByRole("dialog");

/** Files what the open dialog asks for, and sees it done. */
async function order(page, send) {
  await dialog(page).getByLabel("Reason", { exact: true }).fill("a story");
  await dialog(page).getByRole("button", { name: send, exact: true }).click();
  await dialog(page).waitFor({ state: "hidden" });
  await page.getByRole("link", { name: "Look", exact: true }).last().click();
  await page.getByText("Verified", { exact: true }).first().waitFor();
}

async function alarm(page) {
  await page.getByText("Needs a person now").waitFor();
  pid = await ask("intrude");
  await page.getByRole("link", { name: /Network Sniffing/ }).first().click();
  await page.getByText("What happened").waitFor();
  await page.locator(".command").filter({ hasText: COMMAND }).first().waitFor();
  await page.getByText("T1040").first().waitFor();
  alert = page.url();
  await shot(page, "alert");
}

async function profile(page) {
  await page.getByRole("link", { name: "Execution profile" }).click();
  const own = page.getByRole("treeitem").filter({ hasText: pid }).first();
  await own.waitFor();
  check((await own.getAttribute("aria-selected")) === "true", "its process is chosen");
  await shot(page, "profile");
}

async function search(page) {
  await page.keyboard.press("g");
  await page.keyboard.press("s");
  await page.getByText("Search the events of all hosts").waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type(`kind:exec cmdline:"${COMMAND}"`);
  await page.keyboard.press("Enter");
  // Not the shell that put it into the lab's cgroup and became it.
  const line = page.getByRole("listitem").filter({ hasText: COMMAND }).filter({ hasNotText: "cgroup.procs" }).first();
  await line.waitFor();
  await line.getByText(host).first().waitFor();
  await line.getByRole("button").first().click();
  await page.getByText("process.args", { exact: true }).waitFor();
  await shot(page, "search");
}

async function collect(page) {
  await page.getByRole("button", { name: "What to do with process.exe", exact: true }).first().click();
  await page.getByRole("menuitem", { name: "Collect file", exact: true }).click();
  check((await dialog(page).getByLabel("Path", { exact: true }).inputValue()).endsWith("/tcpdump"), "the program's path is there");
  await order(page, "Collect from 1 host");
  await page.getByRole("link", { name: /^Download/ }).waitFor();
  await shot(page, "collected");
}

async function shell(page) {
  await page.goto(alert);
  await page.getByRole("button", { name: "Open a shell" }).click();
  await dialog(page).getByLabel("Reason", { exact: true }).fill("a story");
  await dialog(page).getByRole("button", { name: "Open it" }).click();
  const terminal = page.getByRole("region", { name: "Terminal", exact: true });
  const screen = terminal.locator(".xterm-rows");
  await terminal.getByText("You type").waitFor();
  await screen.filter({ hasText: "holdfast>" }).waitFor();
  await terminal.getByRole("textbox", { name: "Terminal" }).focus();
  await page.keyboard.insertText(`cat /proc/${pid}/comm`);
  await page.keyboard.press("Enter");
  await screen.locator("div").filter({ hasText: /^tcpdump\s*$/ }).first().waitFor();
  await shot(page, "shell");
  await page.keyboard.insertText("exit");
  await page.keyboard.press("Enter");
  await terminal.getByText("It has ended:").waitFor();
}

async function isolate(page) {
  await ask("reached");
  await page.goto(alert);
  await page.getByRole("button", { name: "Isolate", exact: true }).click();
  await order(page, "Isolate 1 host");
  await ask("cut off");
  await page.getByRole("status").getByRole("button", { name: "Release", exact: true }).waitFor();
  await shots(page, "isolated");
}

async function release(page) {
  await page.getByRole("status").getByRole("button", { name: "Release", exact: true }).click();
  await order(page, "Release 1 host");
  await ask("reached");
  await page.goto(alert);
  await page.getByRole("button", { name: "Resolve", exact: true }).click();
  await page.getByRole("menuitem", { name: "True positive", exact: true }).click();
  await page.locator(".state-resolved").first().waitFor();
  await page.goto(BASE);
  await page.getByText("Needs a person now").waitFor();
  await shot(page, "end");
}

await run(async (page) => {
  await signIn(page, user, password);
  for (const chapter of [alarm, profile, search, collect, shell, isolate, release]) await chapter(page);
});
