// A remote shell from its order to the playback of its recording; what an attacked host shows does
// nothing but show; and who may only look.
import { ask, BASE, check, run, shot, shots, signIn, signOut, unharmed } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: password, CONSOLE_HOST: host } = process.env;
const dialog = (page) => page.getByRole("dialog");
const card = (page, name) => page.getByRole("region", { name, exact: true });
const REASON = "ticket <img src=x onerror=alert(1)>";

await run(async (page, context) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: BASE });
  await signIn(page, user, password);
  await page.getByText("Needs a person now").waitFor();

  // An admin may not either, until somebody permits it; and permits it to somebody else.
  await page.keyboard.press("g");
  await page.keyboard.press("r");
  await page.getByText("You may not open, watch or play back shells.").waitFor();
  check((await page.getByRole("button", { name: "Open a shell" }).count()) === 0, "no action without the permission");
  await page.getByRole("link", { name: "Permit it to users" }).click();
  await page.getByRole("row").filter({ hasText: "bob" }).first().click();
  await dialog(page).getByRole("switch", { name: "May open remote shells" }).check();
  await dialog(page).getByRole("button", { name: "Save" }).click();
  await dialog(page).waitFor({ state: "hidden" });
  await ask("permit");
  await page.goto(BASE);
  await signIn(page, user, password);
  await page.getByText("Needs a person now").waitFor();

  // The order says where, which kind and why.
  await page.goto(`${BASE}/shells`);
  await page.getByText("No shells in this period").waitFor();
  await shots(page, "none");
  await page.getByRole("button", { name: "Open a shell" }).click();
  await dialog(page).getByRole("textbox", { name: "Host" }).click();
  await page.getByRole("option", { name: host }).click();
  await dialog(page).getByText("Full", { exact: true }).click();
  check(await dialog(page).getByRole("button", { name: "Open it" }).isDisabled(), "no shell without a reason");
  await dialog(page).getByLabel("Reason", { exact: true }).fill(REASON);
  await shot(page, "open");
  await dialog(page).getByRole("button", { name: "Open it" }).click();

  const terminal = card(page, "Terminal");
  const screen = terminal.locator(".xterm-rows");
  const field = terminal.getByRole("textbox", { name: "Terminal" });
  /** Waits until the terminal shows it: its lines are as wide as it is. */
  const shows = (text) => screen.filter({ hasText: text }).waitFor();
  const type = async (line) => {
    await field.focus();
    await page.keyboard.insertText(line);
    await page.keyboard.press("Enter");
  };
  await terminal.getByText("You type").waitFor();
  await terminal.getByText(/it ends when nobody types for \d+ s/).waitFor();
  const id = new URL(page.url()).pathname.split("/").pop();
  await type("PS1='$ '; echo $((6*7))-$HOLDFAST_SHELL");
  await shows(`42-${id}`);

  // What a hostile host shows: a title, a clipboard, a link, questions, colours, markup, text turned round.
  const hostile = [
    "\\033]0;owned\\007", "\\033]52;c;b3duZWQ=\\007", "\\033]8;;https://evil.example/\\007click\\033]8;;\\007", "\\033[c\\033[>c\\033[6n\\033[5n",
    "\\033P$q\\042p\\033\\\\", "\\033]11;?\\007", "\\033[?1003h\\033[?1004h", "\\033[38;2;255;0;0mred\\033[0m", "<img src=x onerror=alert(1)>",
    "\\342\\200\\256turned", "\\033[8;900;900t",
  ].join("");
  await page.evaluate(() => navigator.clipboard.writeText("mine"));
  await type(`printf '${hostile}'; echo done$((4700+11))`);
  await shows("done4711");
  await shows("red");
  await shows("<img src=x onerror=alert(1)>");
  await unharmed(page, "the terminal");
  check(!(await page.title()).includes("owned"), "no title of a host's");
  check((await page.evaluate(() => navigator.clipboard.readText())) === "mine", "no clipboard of a host's");
  check((await terminal.locator("a").count()) === 0, "no link of a host's");

  // What is pasted begins no escape sequence; what is chosen is copied.
  await page.evaluate(() => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", "echo pasted\u001b[201~$((1+1))");
    document.activeElement.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
  });
  await page.keyboard.press("Enter");
  await shows("pasted[201~2");
  await type("clear; echo; echo chosen");
  await terminal.locator(".xterm-rows > div").nth(1).filter({ hasText: "chosen" }).waitFor();
  await terminal.locator(".xterm-rows > div").nth(1).dblclick({ position: { x: 12, y: 6 }, force: true });
  await terminal.getByRole("button", { name: "Copy" }).click();
  check((await page.evaluate(() => navigator.clipboard.readText())) === "chosen", "what is chosen is copied");
  await field.focus();
  await page.keyboard.press("Shift+Escape");
  check(!(await field.evaluate((one) => one === document.activeElement)), "Shift+Escape leaves the terminal");

  // It is as large as its place.
  const size = async (mark) => {
    await type(`echo ${mark}:$(stty size)`);
    await shows(new RegExp(`${mark}:\\d+ \\d+`));
    return Number(new RegExp(`${mark}:\\d+ (\\d+)`).exec(await screen.textContent())[1]);
  };
  const wide = await size("wide");
  await page.setViewportSize({ width: 900, height: 800 });
  // The host is told of its new size a moment later.
  let narrow = wide;
  for (let [turn, end] = [0, Date.now() + 30_000]; narrow >= wide && Date.now() < end; turn += 1) narrow = await size(`narrow${turn}`);
  check(narrow < wide, `narrower: ${narrow} of ${wide}`);
  await page.setViewportSize({ width: 1280, height: 800 });

  // Somebody looks on, and types nothing.
  await ask("watch");
  await terminal.getByText("Look on:").waitFor();
  await terminal.getByText("bob").waitFor();
  await shots(page, "shell");
  await ask("unwatch");
  await terminal.getByText("Look on:").waitFor({ state: "hidden" });

  // The manager goes and comes back; the shell goes on where it was.
  await type("echo before-$((70+7))");
  await shows("before-77");
  page.expected = [/ERR_/, /Failed to load resource/, /EventSource/, /WebSocket/];
  await ask("stop");
  await terminal.getByText("Connection lost").waitFor();
  await shot(page, "lost");
  await ask("start");
  // The host comes back by itself, after a pause of its own.
  await terminal.getByText("You type").waitFor({ timeout: 120_000 });
  page.expected = [];
  await shows("before-77");
  await type("echo after-$((80+8))");
  await shows("after-88");

  // Its end, in words; then its recording.
  await type("exit 3");
  await terminal.getByText("It has ended:").waitFor();
  await card(page, "Recording").or(page.getByText("That somebody plays or saves it")).first().waitFor();
  await page.getByRole("button", { name: "Play the recording" }).click();
  const player = card(page, "Playback");
  const played = player.locator(".xterm-rows");
  await player.getByText("8×", { exact: true }).click();
  await played.filter({ hasText: "after-88" }).waitFor();
  await player.getByRole("button", { name: "Play again" }).waitFor();
  await unharmed(page, "the recording");
  check((await player.locator("[data-typed]").textContent()).includes("exit 3"), "what was typed is told");
  await shots(page, "played");
  const slider = player.getByRole("slider", { name: "Position" });
  await slider.focus();
  await page.keyboard.press("Home");
  await player.getByText("00:00 /").waitFor();
  await played.filter({ hasNotText: "after-88" }).waitFor();
  await page.keyboard.press("End");
  await played.filter({ hasText: "after-88" }).waitFor();
  await player.getByRole("switch", { name: "Skip pauses" }).uncheck();
  await player.getByText("1×", { exact: true }).click();
  await player.getByRole("button", { name: "Play again" }).click();
  await player.getByRole("button", { name: "Pause" }).click();
  await player.getByRole("button", { name: "Play", exact: true }).waitFor();
  const typed = await page.evaluate(async (shell) => {
    const text = await (await fetch(`/api/v1/shells/${shell}/recording`)).text();
    const lines = text.split("\n").slice(1).filter(Boolean).map((line) => JSON.parse(line));
    return lines.filter(([, kind]) => kind === "i").map(([, , said]) => said).join("");
  }, id);
  // A paste has brackets, where the shell asks for them.
  check(!typed.replace(/\u001b\[20[01]~/g, "").includes("\u001b"), `nothing was typed but by us: ${JSON.stringify(typed)}`);

  // The list, its filters, and the way from the host.
  await page.goto(`${BASE}/shells?stage=failed`);
  await page.getByText("No shell matches").waitFor();
  await page.getByRole("link", { name: "Show without filters" }).click();
  await page.getByRole("row").filter({ hasText: REASON }).first().waitFor();
  await unharmed(page, "the list");
  await shots(page, "list");
  await page.goto(`${BASE}/hosts`);
  await page.getByRole("row").filter({ hasText: host }).first().click();
  await page.getByRole("button", { name: "Open a shell" }).click();
  await dialog(page).getByLabel("Reason", { exact: true }).fill("a restricted one");
  await dialog(page).getByRole("button", { name: "Open it" }).click();
  await shows("holdfast>");
  await page.getByRole("button", { name: "End the shell" }).click();
  await dialog(page).getByLabel("Reason", { exact: true }).fill("enough");
  await dialog(page).getByRole("button", { name: "End the shell" }).click();
  await terminal.getByText("It has ended:").waitFor();

  // Somebody else's is watched; nothing is typed.
  await signOut(page, user);
  await signIn(page, "bob", password);
  await page.getByText("Needs a person now").waitFor();
  const other = await ask("open");
  await page.goto(`${BASE}/shells?stage=open`);
  await page.getByRole("row").filter({ hasText: "watched" }).first().click();
  await shows("shown-99");
  await terminal.getByText("You look on: nothing is typed.").waitFor();
  await terminal.getByText("Types: ann").waitFor();
  await type("echo no-$((50+5))");
  await ask("type");
  await shows("shown-100");
  check(!(await screen.textContent()).includes("no-"), "who looks types nothing");
  check(page.url().endsWith(other), page.url());
  await page.evaluate(() => localStorage.setItem("holdfast.language", "ja"));
  await page.goto(`${BASE}/shells/${id}`);
  await page.getByRole("button", { name: "記録を再生" }).waitFor();
  await shot(page, "ja");
  await page.evaluate(() => localStorage.setItem("holdfast.language", "en"));

  // Who may only look at the rest sees that there was one, and no action.
  await page.goto(BASE);
  await signOut(page, "bob");
  const viewer = JSON.parse(await ask("viewer"));
  await signIn(page, viewer.name, viewer.password);
  await page.getByText("Needs a person now").waitFor();
  await page.goto(`${BASE}/shells`);
  await page.getByText("An admin can permit it to operators.").waitFor();
  await page.getByRole("row").filter({ hasText: REASON }).first().click();
  await page.getByText("You may not open, watch or play back shells.").waitFor();
  for (const name of ["Open a shell", "End the shell", "Play the recording"])
    check((await page.getByRole("button", { name }).count()) === 0, `no ${name} for a viewer`);
  check((await page.locator("[data-terminal]").count()) === 0, "no terminal for a viewer");
});
