// The query language as it is typed: completed, refused at the place, and narrowed by what was found.
import { ask, BASE, check, enter, run, shot, shots, signOut, unharmed } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: first, CONSOLE_HOST: host } = process.env;
const password = "another password of tests";
const asked = (page) => new URL(page.url()).searchParams.get("query");

await run(async (page) => {
  await enter(page, user, first, password);
  await ask("exec");
  await page.keyboard.press("g");
  await page.keyboard.press("s");
  await page.getByText("Search the events of all hosts").waitFor();
  await shots(page, "search-start");

  // Fields and values are completed by Tab and by arrows.
  const field = page.getByRole("textbox", { name: "Query" }).or(page.getByRole("combobox", { name: "Query" }));
  await page.keyboard.press("/");
  await page.keyboard.type("ki");
  await page.getByRole("option", { name: /kind:/ }).waitFor();
  await page.keyboard.press("Tab");
  await page.getByRole("option", { name: /malware/ }).waitFor();
  await shot(page, "search-completion");
  await page.keyboard.type("exe");
  await page.getByRole("option", { name: /^exec/ }).waitFor();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  check((await field.inputValue()) === "kind:exec ", await field.inputValue());
  await page.keyboard.type(`host:${host.slice(0, 1)}`);
  await page.getByRole("option").filter({ hasText: host }).first().waitFor();
  await page.keyboard.press("Tab");
  await page.keyboard.type('cmdline:"marker4711');
  page.expected = [/status of 400/];
  await page.keyboard.press("Enter");

  // What is wrong is shown where it is.
  await page.getByText("this quote is not closed").waitFor();
  check((await page.locator(".wrong mark").textContent()) === '"', "the quote is marked");
  await page.keyboard.press("End");
  await page.keyboard.type('"');
  await page.keyboard.press("Enter");
  const line = page.getByRole("listitem").filter({ hasText: "marker4711" }).first();
  await line.waitFor();
  await unharmed(page, "the results");
  await shots(page, "search");

  // A line opens to all fields, by the keyboard too.
  await page.keyboard.press("Escape");
  await page.locator("[data-table]").focus();
  await page.keyboard.press("Enter");
  await page.getByText("process.args", { exact: true }).waitFor();
  await unharmed(page, "the fields");
  await shots(page, "search-open");

  // Each value narrows the search.
  const menu = (name) => page.getByRole("button", { name: `What to do with ${name}`, exact: true }).first();
  await menu("process.user").click();
  await page.getByRole("menuitem", { name: "Filter for this" }).click();
  await line.waitFor();
  check(/ user:root$/.test(asked(page)), asked(page));
  await line.getByRole("button").first().click();
  await menu("process.exe").click();
  await page.getByRole("menuitem", { name: "Filter this out" }).click();
  await page.getByText("Nothing was found").waitFor();
  check(/ -exe:\S+$/.test(asked(page)), asked(page));
  await shot(page, "search-none");
  await page.goBack();

  // A path is a file that can be fetched from its host.
  await page.goto(`${BASE}/search?${new URLSearchParams({ query: 'kind:exec cmdline:"marker4711"' })}`);
  await line.getByRole("button").first().click();
  await menu("process.exe").click();
  await page.getByRole("menuitem", { name: "Collect file" }).click();
  check((await page.getByRole("dialog").getByLabel("Path").inputValue()).startsWith("/"), "the path is there");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });

  // A search is kept in this browser, which is said.
  await page.getByRole("button", { name: "Saved" }).click();
  await page.getByText("They are kept in this browser only.").waitFor();
  await page.getByRole("menuitem", { name: "Save this search…" }).click();
  await page.getByRole("dialog").getByLabel("Name").fill("my <b>marker</b>");
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.goto(`${BASE}/search`);
  await page.getByRole("button", { name: "Saved" }).click();
  await shot(page, "search-saved");
  await page.getByRole("menuitem", { name: "my <b>marker</b>", exact: false }).first().click();
  await line.waitFor();
  await page.getByRole("button", { name: "Saved" }).click();
  await page.getByRole("menuitem", { name: "Forget my <b>marker</b>" }).click();
  await page.getByText("No saved searches.").waitFor();
  await page.keyboard.press("Escape");

  await signOut(page, user);
  const viewer = JSON.parse(await ask("viewer"));
  await enter(page, viewer.name, viewer.password, password);
  await page.goto(`${BASE}/search?${new URLSearchParams({ query: 'kind:exec cmdline:"marker4711"' })}`);
  await line.getByRole("button").first().click();
  await menu("process.exe").click();
  await page.getByRole("menuitem", { name: "Filter for this" }).waitFor();
  check((await page.getByRole("menuitem", { name: "Collect file" }).count()) === 0, "a viewer fetches no file");
});
