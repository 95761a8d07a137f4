// An OAuth 2 server that nobody here wrote (npm oidc-provider), with its addresses laid out as in Entra ID.
//   node oauth2_peer.mjs DIRECTORY-WITH-NODE_MODULES CERTIFICATE-AND-KEY.pem CLIENTS.json
// CLIENTS.json has {tenant, resource, clients: [{client_id, client_secret} or {client_id, jwks}]}.
// Prints its port once it listens, and then a line for each request that it refuses.
import fs from 'node:fs';
import https from 'node:https';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, pem, clientsFile] = process.argv.slice(2);
const find = createRequire(path.join(path.resolve(modules), 'here.js'));
const { default: Provider } = await import(pathToFileURL(find.resolve('oidc-provider')));
const { tenant, resource, clients } = JSON.parse(fs.readFileSync(clientsFile));
const scope = `${resource}/.default`;

const credentials = (client) => ({
  ...client,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope,
  token_endpoint_auth_method: client.jwks ? 'private_key_jwt' : 'client_secret_post',
});

const server = https.createServer({ key: fs.readFileSync(pem), cert: fs.readFileSync(pem) });
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  const provider = new Provider(`https://127.0.0.1:${port}/${tenant}/v2.0`, {
    clients: clients.map(credentials),
    scopes: [scope],
    clientAuthMethods: ['client_secret_post', 'private_key_jwt'],
    routes: { token: '/oauth2/v2.0/token', jwks: '/discovery/v2.0/keys', authorization: '/oauth2/v2.0/authorize' },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => resource,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope, audience: resource, accessTokenTTL: 3599, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
    // Entra's clients name the token endpoint as the audience, which the standard's newest edition does not want.
    assertJwtClientAuthClaimsAndHeader: async () => {},
  });
  provider.on('grant.error', (ctx, error) => console.log('refused', error.error, error.error_detail ?? ''));
  const answer = provider.callback();
  server.on('request', (request, response) => {
    if (!request.url.startsWith(`/${tenant}/`)) {
      response.writeHead(400, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ error: 'invalid_tenant', error_description: 'AADSTS90002: no such tenant' }));
      return;
    }
    request.originalUrl = request.url.replace(`/${tenant}/v2.0/.well-known`, `/${tenant}/.well-known`);
    request.baseUrl = `/${tenant}`;
    request.url = request.originalUrl.slice(tenant.length + 1);
    answer(request, response);
  });
  console.log(port);
});
