// Embeds texts from Go, and says what went wrong:
//
//	protoc -Iprotos -Iprotos/googleapis --go_out=SRC --go-grpc_out=SRC bertd/v1/inference.proto bertd/v1/models.proto
//	go run embed.go ADDRESS [KEY]
//
// In a module of your own, add to protoc for both files and both plugins where their code belongs,
// such as --go_opt=Mbertd/v1/inference.proto=example.com/app/bertd/v1.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"os"
	"time"

	bertd "bertd/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // without it the service config's health check is left out
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func vector(bytes []byte) []float32 {
	values := make([]float32, len(bytes)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(bytes[4*i:]))
	}
	return values
}

func main() {
	config, err := os.ReadFile(os.Getenv("SERVICE_CONFIG")) // examples/service_config.json
	if err != nil {
		log.Fatal(err)
	}
	channel, err := grpc.Dial(os.Args[1], grpc.WithInsecure(), grpc.WithDefaultServiceConfig(string(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20))) // 4 MiB otherwise
	if err != nil {
		log.Fatal(err)
	}
	defer channel.Close()
	client := bertd.NewInferenceServiceClient(channel)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // also the server's
	defer cancel()
	if len(os.Args) > 2 {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Args[2])
	}

	answer, err := client.Embed(ctx, &bertd.EmbedRequest{Texts: []string{"the cat sat on a mat", ""}})
	if err != nil {
		log.Fatal(err)
	}
	for _, result := range answer.Results {
		if failed := result.GetError(); failed != nil {
			fmt.Printf("%d: %s\n", failed.Code, failed.Message)
		} else {
			fmt.Println(len(vector(result.GetEmbedding())), "values")
		}
	}
	_, err = client.Embed(ctx, &bertd.EmbedRequest{})
	failed := status.Convert(err)
	for _, detail := range failed.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			fmt.Printf("%s %s: %s\n", failed.Code(), info.Reason, failed.Message())
		}
	}
}
