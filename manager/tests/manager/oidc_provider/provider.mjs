// A real OpenID Connect provider for the tests, with people that the tests name.
//
//   node provider.mjs CLIENT_ID CLIENT_SECRET CALLBACK
//
// Prints its address. Anybody signs in under any name, as the provider's own test pages have it.
// `PUT /people/NAME` with JSON sets what is told of somebody.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const [client_id, client_secret, callback] = process.argv.slice(2);
const people = new Map();
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id, client_secret, redirect_uris: [callback] }],
    claims: { openid: ['sub'], profile: ['preferred_username'], groups: ['groups'] },
    cookies: { keys: ['of the tests'] },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, preferred_username: id, ...people.get(id) }),
    }),
  });
  const answer = provider.callback();
  server.on('request', async (request, response) => {
    const [, who] = request.url.match(/^\/people\/(.*)$/) ?? [];
    if (!who) return answer(request, response);
    let body = '';
    for await (const part of request) body += part;
    people.set(decodeURIComponent(who), JSON.parse(body));
    response.end();
  });
  console.log(issuer);
});
// Ends with the test that started it.
process.stdin.on('end', () => process.exit(0)).resume();
