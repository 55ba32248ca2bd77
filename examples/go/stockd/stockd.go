// Package stockd has what the quickstart and the checkout share: a connection to the cluster, and its
// errors.
package stockd

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
)

// gRPC repeats calls by itself. A call is repeated as it is, with its request id: where an attempt was
// carried out and only its answer was lost, the next one gets the stored answer.
//
//   - round_robin: any node takes any call and passes it on to the leader it belongs to.
//   - timeout: how long one call may take, repeats and all. It is sent along, so that the cluster stops
//     working for a caller who has gone.
//   - waitForReady: while no node is reached a call waits for one, until it is out of time.
//   - retryPolicy: five attempts with pauses of 3 s in all. The election of a new leader takes less.
//   - retryThrottling: an election fails some hundreds of calls of a busy shop, and all of them may be
//     repeated. A cluster that goes on failing gets one repeat for every ten answers.
const serviceConfig = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"methodConfig": [{
		"name": [{}],
		"timeout": "10s",
		"waitForReady": true,
		"retryPolicy": {
			"maxAttempts": 5,
			"initialBackoff": "0.2s",
			"maxBackoff": "2s",
			"backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]
		}
	}],
	"retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.1}
}`

// Connect opens a connection to the nodes at endpoints: HOST:PORT, several separated by commas.
func Connect(endpoints string) (*grpc.ClientConn, error) {
	var nodes []resolver.Endpoint
	for _, address := range strings.Split(endpoints, ",") {
		addresses := []resolver.Address{{Addr: address}}
		nodes = append(nodes, resolver.Endpoint{Addresses: addresses})
	}
	listed := manual.NewBuilderWithScheme("nodes")
	listed.InitialState(resolver.State{Endpoints: nodes})
	return grpc.NewClient(
		listed.Scheme()+":///stockd",
		grpc.WithResolvers(listed),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		// A connection whose node is gone without a word is found out, also while no call is under way.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 20 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true,
		}),
	)
}

// NewRequestID names a request. The time in a UUIDv7 lets the cluster forget old ids safely.
func NewRequestID() string { return uuid.Must(uuid.NewV7()).String() }

// Reason is why, for programs, as stock/v1/errors.proto lists it; empty where no node has said.
func Reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// Describe tells an error to people, with its stable reason and the fields at fault.
func Describe(err error) string {
	refused := status.Convert(err)
	lines := []string{fmt.Sprintf("  %s: %s", refused.Code(), refused.Message())}
	for _, detail := range refused.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			lines = append(lines, "  reason: "+detail.GetReason())
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				lines = append(lines,
					fmt.Sprintf("  field %s: %s", violation.GetField(), violation.GetDescription()))
			}
		}
	}
	return strings.Join(lines, "\n")
}
