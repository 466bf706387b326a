// @itwin/service-authorization: a service application signs in, its token is looked into, and it works with it.
import { assert, as, check, given, refused, require } from "./harness.mjs";

const { IntrospectionClient, OIDCDiscoveryClient, ServiceAuthorizationClient } = require("@itwin/service-authorization");
const { IModelsClient, toArray } = require("@itwin/imodels-client-management");
const { ITwinsAccessClient } = require("@itwin/itwins-client");

const authority = given.url;
const scope = "itwin-platform";
const clientId = "service-meridian-design-sync";
const itwins = new ITwinsAccessClient(`${given.url}/itwins`);
const iModels = new IModelsClient({ api: { baseUrl: `${given.url}/imodels` } });
const signIn = (more) => new ServiceAuthorizationClient({ clientId, clientSecret: "s3cret +/%", scope, authority, ...more });

await check("discovers the sign-in server", async () => {
  const found = await new OIDCDiscoveryClient(authority).getConfig();
  assert.deepEqual([found.issuer, found.token_endpoint], [authority, `${authority}/connect/token`]);
});

await check("a service application signs in, and its token is kept until it expires", async () => {
  const client = signIn();
  assert.deepEqual([client.hasSignedIn, client.isAuthorized], [false, false]);
  const token = await client.getAccessToken();
  assert.match(token, /^Bearer ey/);
  assert.deepEqual([client.hasSignedIn, client.isAuthorized, client.hasExpired], [true, true, false]);
  assert.equal(await client.getAccessToken(), token);
});

await check("a token is found valid and to be whose it is", async () => {
  const answer = await new IntrospectionClient({ issuerUrl: authority }).introspect(await signIn().getAccessToken());
  assert.deepEqual(
    [answer.active, answer.client_id, answer.scope, answer.iss, answer.email],
    [true, clientId, scope, authority, `${clientId}@apps.imsoidc.bentley.com`],
  );
  assert.ok(answer.exp - answer.iat >= 3000);
});

await check("the token of a user is found valid too", async () => {
  const client = new IntrospectionClient({ issuerUrl: authority });
  const answer = await client.introspect(`Bearer ${given.tokens.anna}`);
  assert.deepEqual([answer.active, answer.scope], [true, scope]);
  assert.ok(answer.sub && answer.org && answer.jti);
});

await check("a token with another signature is not active", async () => {
  const [head, body, signature] = (await signIn().getAccessToken()).slice("Bearer ".length).split(".");
  const forged = `${head}.${body}.${signature.split("").reverse().join("")}`;
  const answer = await new IntrospectionClient({ issuerUrl: authority }).introspect(`Bearer ${forged}`);
  assert.equal(answer.active, false);
});

await check("the service application works in the iTwins that it was added to", async () => {
  const token = await signIn().getAccessToken();
  const { status, data } = await itwins.queryAsync(token, "Project");
  assert.equal(status, 200);
  assert.ok(data.length >= 1);
  const authorization = async () => ({ scheme: "Bearer", token: token.slice("Bearer ".length) });
  const project = data.find((one) => one.number === "NL-A12-0042");
  const found = await toArray(iModels.iModels.getMinimalList({ authorization, urlParams: { iTwinId: project.id } }));
  assert.ok(found.length >= 2);
});

await check("one that nobody added sees nothing", async () => {
  const token = await signIn({ clientId: "service-stranger" }).getAccessToken();
  const { status, data } = await itwins.queryAsync(token);
  assert.deepEqual([status, data], [200, []]);
  const [project] = (await itwins.queryAsync(`Bearer ${given.tokens.anna}`, "Project")).data;
  assert.equal((await itwins.getAsync(token, project.id)).status, 404);
});

await check("another secret than that of the first use is refused", async () => {
  await signIn().getAccessToken();
  const thrown = await signIn({ clientSecret: "other" }).getAccessToken().then(() => undefined, (error) => error);
  assert.equal(thrown?.response?.statusCode, 401);
  assert.equal(JSON.parse(thrown.response.body).error, "invalid_client");
});

await check("a service application may ask for nothing about a person", async () => {
  await assert.rejects(signIn({ scope: "itwin-platform openid" }).getAccessToken(), /cannot include 'openid/);
});

await check("what somebody may not do is refused to an application too", async () => {
  const token = (await signIn({ clientId: "service-stranger" }).getAccessToken()).slice("Bearer ".length);
  const [project] = (await itwins.queryAsync(`Bearer ${given.tokens.anna}`, "Project", { number: "NL-A12-0042" })).data;
  const [iModel] = await toArray(
    iModels.iModels.getMinimalList({ authorization: as("anna"), urlParams: { iTwinId: project.id } }),
  );
  const authorization = async () => ({ scheme: "Bearer", token });
  await refused(iModels.iModels.getSingle({ authorization, iModelId: iModel.id }), "iModelNotFound");
});
