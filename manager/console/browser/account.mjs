// One's own account, and the doors to it: the second factor from its secret to its end, tokens that are
// shown once, and why a sign-in by a provider came back with nothing.
import { createHmac } from "node:crypto";
import { request } from "playwright-core";
import { BASE, check, enter, run, shot, shots, signIn, signOut } from "./harness.mjs";

const { CONSOLE_USER: user, CONSOLE_PASSWORD: first } = process.env;
const password = "another password of tests";
const next = "a third password of tests";

/** RFC 6238, as authenticator apps have it. `later`: steps of 30 s from now. */
function code(secret, later = 0) {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...secret].map((one) => alphabet.indexOf(one).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + later));
  const hash = createHmac("sha1", key).update(counter).digest();
  const at = hash[19] & 15;
  return String((hash.readUInt32BE(at) & 0x7fffffff) % 1_000_000).padStart(6, "0");
}

await run(async (page) => {
  // Who comes back from a provider is told why, in words of the page and in no others.
  await page.goto(`${BASE}/sign-in?refused=no_role`);
  await page.getByText("Your account there has no role here.").waitFor();
  // The harness runs no provider: this answer alone is the test's own.
  await page.route("**/api/v1/session/providers", (route) => route.fulfill({ json: [{ name: "corp" }, { name: "<b>x</b>" }] }));
  await page.goto(`${BASE}/sign-in?refused=${encodeURIComponent("<img src=x onerror=alert(1)>")}`);
  const by = page.getByRole("link", { name: "Sign in with corp" });
  check((await by.getAttribute("href")) === "/api/v1/session/oidc/corp", "it begins at the manager");
  check((await page.getByRole("link", { name: "Sign in with <b>x</b>" }).getAttribute("href")).endsWith("/%3Cb%3Ex%3C%2Fb%3E"), "a name is no path");
  check((await page.locator("img").count()) === 0, "an address is no markup");
  await shots(page, "sign-in-providers");
  await page.unroute("**/api/v1/session/providers");

  await enter(page, user, first, password);
  await page.goto(`${BASE}/sign-in`);
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await page.getByRole("button", { name: user }).click();
  await page.getByRole("menuitem", { name: "Account" }).click();
  await page.getByRole("heading", { name: "Account" }).waitFor();
  await page.getByText("No API tokens").waitFor();
  await shots(page, "account");

  // The password.
  const change = async (old, fresh) => {
    await page.getByLabel("Password now").fill(old);
    await page.getByLabel("New password", { exact: true }).fill(fresh);
    await page.getByLabel("New password again").fill(fresh);
    await page.getByRole("button", { name: "Change the password" }).click();
  };
  await change("not the password", next);
  await page.getByText("The password now is wrong.").waitFor();
  await change(password, next);
  await page.getByText("The password is changed.").waitFor();

  // The second factor.
  await page.getByRole("button", { name: "Set it up" }).click();
  await page.getByLabel("Your password").fill(next);
  await page.getByRole("button", { name: "Go on" }).click();
  const secret = (await page.locator("[data-secret]").textContent()).replaceAll(" ", "");
  const uri = await page.locator("[data-uri]").textContent();
  check(uri.startsWith("otpauth://totp/") && uri.includes(secret), uri);
  await shot(page, "account-factor");
  await page.getByLabel("Code", { exact: true }).fill(code(secret, -1));
  await page.getByRole("button", { name: "Turn it on" }).click();
  await page.locator("[data-codes]").waitFor();
  const codes = await page.locator("[data-codes] code").allTextContents();
  check(codes.length === 10, `${codes.length} recovery codes`);
  await shot(page, "account-codes");
  await page.getByRole("button", { name: "I have kept them" }).click();
  await page.getByText("Recovery codes left").waitFor();
  check((await page.locator("[data-codes]").count()) === 0, "they are shown once");
  await shots(page, "account-factor-on");

  await signOut(page, user);
  await signIn(page, user, next);
  await page.getByLabel("Code", { exact: true }).fill(code(secret));
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Account" }).or(page.getByRole("heading", { name: "Overview" })).waitFor();
  await page.goto(`${BASE}/account`);
  await page.getByRole("button", { name: "Turn it off" }).click();
  await page.getByLabel("Your password").fill(next);
  await page.getByLabel("Code", { exact: true }).fill("000000");
  await page.getByRole("button", { name: "Turn it off" }).click();
  await page.getByText("Password or code is wrong").waitFor();
  await page.getByLabel("Code", { exact: true }).fill(codes[0]);
  await page.getByRole("button", { name: "Turn it off" }).click();
  await page.getByRole("button", { name: "Set it up" }).waitFor();

  // A token: shown once, does what it may, and ends.
  await page.getByRole("button", { name: "Make a token" }).first().click();
  await page.getByRole("dialog").getByLabel("Name").fill("backup <i>job</i>");
  await shot(page, "account-token");
  await page.getByRole("dialog").getByRole("button", { name: "Make a token" }).click();
  const token = await page.locator("[data-token]").textContent();
  await page.getByRole("button", { name: "Done" }).click();
  const program = await request.newContext({ ignoreHTTPSErrors: true, extraHTTPHeaders: { authorization: `Bearer ${token}` } });
  check((await program.get(`${BASE}/api/v1/hosts`)).status() === 200, "the token opens");
  await page.reload();
  await page.getByRole("cell", { name: "backup <i>job</i>", exact: true }).waitFor();
  check(!(await page.locator("body").textContent()).includes(token), "it is shown once");
  await shots(page, "account-tokens");
  await page.getByRole("button", { name: "End backup <i>job</i>" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "End" }).click();
  await page.getByText("No API tokens").waitFor();
  check((await program.get(`${BASE}/api/v1/hosts`)).status() === 401, "the token is worth nothing");
  await program.dispose();
});
