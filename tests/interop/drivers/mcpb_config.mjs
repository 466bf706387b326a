// How the reference implementation of MCPB reads a manifest: one JSON object in, the command to start out.
import { getMcpConfigForManifest } from "@anthropic-ai/mcpb/node";

const told = JSON.parse(process.argv[2]);
const config = await getMcpConfigForManifest({ ...told, systemDirs: {}, pathSeparator: "/" });
console.log(JSON.stringify(config));
